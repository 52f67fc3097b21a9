//! What Temporal's UI is told of mirrors: figures, by a signal, when they have changed enough. Each signal
//! makes a mirror's history longer by five events, so they are rare.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use millrace_catalog::health::Health;
use millrace_catalog::mirrors::{Mirror, MirrorFilter};
use millrace_catalog::page::{PAGE_SIZE_MAX, PageRequest};
use millrace_catalog::progress::{self, tables_in};
use millrace_catalog::state::{MirrorState, TableState};
use millrace_terms::Result;
use millrace_workflows::payload::Figures;
use millrace_workflows::{MirrorWorkflow, ids};
use temporalio_client::tonic::Request;
use temporalio_client::{Client, WorkflowSignalOptions};
use temporalio_common::protos::temporal::api::operatorservice::v1::ListSearchAttributesRequest;

use crate::environment::Environment;
use crate::stream::MirrorHandle;

/// Least time between two signals to one mirror that only figures changed of. Verdicts and numbers of tables
/// are told at the next round of housekeeping.
const INTERVAL: Duration = Duration::from_secs(60);

/// Steps in which a lag is told: within one of them nobody has to react otherwise.
const LAG_SECONDS: [u64; 7] = [10, 30, 60, 300, 1_800, 7_200, 43_200];

/// Share of a table's rows, as a divisor, that have to be copied since for that to be told.
const ROWS_SHARE: u64 = 100;

/// Tells the workflows of mirrors how these are. What cannot be told now is told in the next round.
pub(super) async fn figures(environment: &Environment, client: &Client) -> Result<()> {
    let is_indexed = knows_attributes(client).await;
    let shown = environment.catalog.shown_figures::<Figures>().await?;
    let (now, mut token) = (Timestamp::now(), String::new());
    loop {
        let request = PageRequest { size: PAGE_SIZE_MAX, token };
        let page = environment.catalog.list_mirrors(&request, &MirrorFilter::default()).await?;
        for mirror in &page.items {
            let figures = Figures { is_indexed, ..of(mirror, now) };
            if has_workflow(mirror) && is_news(shown.get(mirror.name()), &figures) {
                tell(environment, client, mirror.name(), figures).await?;
            }
        }
        match page.next {
            Some(next) => token = next,
            None => return Ok(()),
        }
    }
}

async fn tell(environment: &Environment, client: &Client, mirror: &str, figures: Figures) -> Result<()> {
    let handle: MirrorHandle = client.get_workflow_handle(ids::mirror(mirror));
    let options = WorkflowSignalOptions::default();
    match handle.signal(MirrorWorkflow::figures, figures.clone(), options).await {
        Ok(()) => environment.catalog.note_shown(mirror, &figures).await,
        Err(error) => {
            tracing::debug!(error = %error, %mirror, "the mirror's workflow could not be told its figures");
            Ok(())
        }
    }
}

/// Whether the search attributes are there: a workflow that set one that is not would stand still.
async fn knows_attributes(client: &Client) -> bool {
    let namespace = client.options().namespace.clone();
    let request = Request::new(ListSearchAttributesRequest { namespace });
    match client.connection().operator_service().list_search_attributes(request).await {
        Ok(answer) => {
            let known: BTreeSet<String> = answer.into_inner().custom_attributes.into_keys().collect();
            ids::FIGURE_ATTRIBUTES.iter().all(|name| known.contains(*name))
        }
        Err(_) => false,
    }
}

fn has_workflow(mirror: &Mirror) -> bool {
    mirror.workflow_started && !matches!(mirror.state, MirrorState::Completed | MirrorState::Dropping)
}

/// A mirror's figures at `now`.
fn of(mirror: &Mirror, now: Timestamp) -> Figures {
    let progress = progress::of(mirror, now);
    let whole = |number: f64| number.max(0.0).round() as u64;
    let stalled = match &progress.health {
        Health::Stalled(reason) => format!("{}: {}", reason.code, reason.message),
        _ => String::new(),
    };
    Figures {
        at: now.as_second(),
        as_of: now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        verdict: progress.health.as_str().to_owned(),
        stalled,
        tables: mirror.tables.len() as u64,
        tables_done: tables_in(mirror, &[TableState::Streaming]),
        rows_copied: progress.rows_copied,
        rows_estimated: progress.rows_estimated,
        copied_per_s: progress.copy_rows_per_s.map(whole),
        eta_s: progress.eta_seconds.map(whole),
        streamed_per_s: whole(progress.stream_rows_per_s),
        lag_bytes: progress.lag_bytes,
        lag_s: progress.lag_time.map(|lag| lag.as_secs().unsigned_abs()),
        is_indexed: false,
    }
}

/// Whether somebody who looks at the figures that were told would be misled.
fn is_news(shown: Option<&Figures>, now: &Figures) -> bool {
    let Some(shown) = shown else { return true };
    let standing = |figures: &Figures| {
        let code = figures.stalled.split(':').next().unwrap_or_default().to_owned();
        (figures.verdict == "STALLED", code, figures.tables, figures.tables_done, figures.is_indexed)
    };
    if standing(shown) != standing(now) {
        return true;
    }
    let step = |figures: &Figures| figures.lag_s.map(|lag| LAG_SECONDS.partition_point(|step| *step <= lag));
    let rows = now.rows_copied.abs_diff(shown.rows_copied);
    let has_moved = rows > now.rows_estimated / ROWS_SHARE
        || (rows > 0 && now.copied_per_s.is_none())
        || step(shown) != step(now)
        || shown.verdict != now.verdict;
    has_moved && now.at.saturating_sub(shown.at).unsigned_abs() >= INTERVAL.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> Figures {
        Figures {
            at: 1_000,
            as_of: String::new(),
            verdict: "IDLE".into(),
            stalled: String::new(),
            tables: 2,
            tables_done: 2,
            rows_copied: 500,
            rows_estimated: 1_000,
            copied_per_s: None,
            eta_s: None,
            streamed_per_s: 0,
            lag_bytes: Some(0),
            lag_s: Some(0),
            is_indexed: true,
        }
    }

    #[test]
    fn little_is_told_of_a_mirror_that_stays_as_it_is() {
        let at = |at, change: fn(&mut Figures)| {
            let mut figures = Figures { at, ..idle() };
            change(&mut figures);
            is_news(Some(&idle()), &figures)
        };
        assert!(is_news(None, &idle()), "nothing was told yet");
        assert!(!at(90_000, |_| {}), "nothing changed");
        assert!(!at(90_000, |figures| figures.lag_s = Some(9)), "nobody needs to know");
        assert!(!at(1_030, |figures| figures.lag_s = Some(40)), "not so soon");
        assert!(at(1_060, |figures| figures.lag_s = Some(40)));
        assert!(!at(1_030, |figures| figures.verdict = "HEALTHY".into()), "that comes and goes");
        assert!(at(1_060, |figures| figures.verdict = "HEALTHY".into()));
        assert!(!at(1_060, |figures| figures.streamed_per_s = 7_000));
        let stalled = |figures: &mut Figures| {
            figures.verdict = "STALLED".into();
            figures.stalled = "NO_WORKERS: none".into();
        };
        assert!(at(1_001, stalled), "at once");
        assert!(at(1_001, |figures| figures.tables_done = 1), "at once");
        assert!(at(1_001, |figures| figures.is_indexed = false), "it can be searched for now");
    }

    #[test]
    fn of_a_copy_every_hundredth_part_is_told_and_its_end() {
        let copying = Figures { copied_per_s: Some(5), ..idle() };
        let later = |rows_copied| Figures { at: 1_060, rows_copied, ..copying.clone() };
        assert!(!is_news(Some(&copying), &later(505)));
        assert!(is_news(Some(&copying), &later(511)));
        let done = Figures { copied_per_s: None, ..later(505) };
        assert!(is_news(Some(&copying), &done));
    }
}
