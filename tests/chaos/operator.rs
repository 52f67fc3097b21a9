//! A person who resyncs tables, pauses and resumes them and the mirror, while all this happens. I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_proto::v1::mirror_service_client::MirrorServiceClient;
use millrace_proto::v1::{self as api, mirror};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::transport::Channel;

use super::tables::TABLES;

/// Longest wait for an answer: server, catalog or Temporal may be frozen.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How often is looked whether to stop.
const LOOK: Duration = Duration::from_millis(200);

type Service = MirrorServiceClient<Channel>;

/// Until told to stop. Refusals and lost answers are logged: they are no failure.
pub async fn run(
    mut service: Service,
    name: String,
    seed: u64,
    stop: Arc<AtomicBool>,
    log: impl Fn(String) + Send + 'static,
) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x6f70);
    loop {
        let pause = Duration::from_secs_f64(rng.random_range(5.0..20.0));
        let until = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < until {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        let what = rng.random_range(0..13);
        let table = format!("public.{}", TABLES[rng.random_range(0..TABLES.len())].name);
        let name = name.clone();
        let (what, answer) = match what {
            0..6 => {
                let request = api::ResyncTableRequest { name, table: table.clone(), ..Default::default() };
                (format!("resync {table}"), answered(service.resync_table(request)).await)
            }
            6 => {
                let request = api::ResyncMirrorRequest { name, ..Default::default() };
                ("resync".to_owned(), answered(service.resync_mirror(request)).await)
            }
            7..10 => {
                let request =
                    api::PauseTableRequest { name: name.clone(), table: table.clone(), ..Default::default() };
                let paused = answered(service.pause_table(request)).await;
                tokio::time::sleep(Duration::from_secs_f64(rng.random_range(0.0..4.0))).await;
                (
                    format!("pause, resume {table}"),
                    paused.and(resume_table(&mut service, &name, &table).await),
                )
            }
            _ => {
                let request = api::PauseMirrorRequest { name: name.clone(), ..Default::default() };
                let paused = answered(service.pause_mirror(request)).await;
                tokio::time::sleep(Duration::from_secs_f64(rng.random_range(0.0..4.0))).await;
                let resumed = resume(service.clone(), &name).await;
                ("pause, resume".to_owned(), paused.and(resumed))
            }
        };
        log(format!("{what}: {answer:?}"));
    }
}

async fn resume_table(service: &mut Service, name: &str, table: &str) -> Result<(), String> {
    let (name, table) = (name.to_owned(), table.to_owned());
    answered(service.resume_table(api::ResumeTableRequest { name, table, ..Default::default() })).await
}

/// Resumes every table that is paused.
pub async fn resume_tables(mut service: Service, name: &str) -> Result<(), String> {
    let request = api::GetMirrorRequest { name: name.to_owned() };
    let found = service.get_mirror(request).await.map_err(|status| status.to_string())?.into_inner();
    for table in found.tables.iter().filter(|table| table.state() == api::table::State::Paused) {
        resume_table(&mut service, name, &table.source).await?;
    }
    Ok(())
}

/// Resumes the mirror, if it is paused.
pub async fn resume(mut service: Service, name: &str) -> Result<(), String> {
    let name = name.to_owned();
    let request = api::GetMirrorRequest { name: name.clone() };
    let found = tokio::time::timeout(CALL_LIMIT, service.get_mirror(request)).await;
    let found = found.map_err(|error| error.to_string())?.map_err(|status| status.to_string())?;
    if found.into_inner().state() != mirror::State::Paused {
        return Ok(());
    }
    answered(service.resume_mirror(api::ResumeMirrorRequest { name, ..Default::default() })).await
}

async fn answered<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<(), String> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(late) => Err(late.to_string()),
    }
}
