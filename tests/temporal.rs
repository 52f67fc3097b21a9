//! What a user sees in Temporal: the mirror's workflows by search attribute, readable ids, a summary,
//! and no payload that holds a password or a row.

use futures::StreamExt;
use libtest_mimic::Trial;
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions};

use crate::support::bed::{Bed, SOON};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![test(
        "temporal::workflows_are_readable_and_hold_no_secret",
        workflows_are_readable_and_hold_no_secret,
    )]
}

/// In every row, to be looked for in the histories.
const ROW_MARKER: &str = "row-marker-7f3a";

async fn workflows_are_readable_and_hold_no_secret(bed: Bed) {
    bed.sql(&format!("create table t (id int primary key, v text); insert into t select i, '{ROW_MARKER}' || i from generate_series(1, 100) i")).await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("update t set v = v || '!'").await;
    bed.wait_equal("t", "t").await;

    let address: url::Url = stack::endpoints().temporal.parse().expect("a URL");
    let connection =
        Connection::connect(ConnectionOptions::new(address).identity("e2e").build()).await.expect("Temporal");
    let client = Client::new(connection, ClientOptions::new("default").build()).expect("a client");
    let query = format!("MirrorName=\"{}\"", bed.name);
    let ids = wait::until("the mirror's workflows", SOON, || async {
        let mut found = Vec::new();
        let mut listed = client.list_workflows(query.clone(), Default::default());
        while let Some(workflow) = listed.next().await {
            found.push(workflow.map_err(|error| error.to_string())?.id().to_owned());
        }
        found.sort();
        if found.len() >= 3 { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    for expected in [
        format!("mirror/{}", bed.name),
        format!("stream/{}/0", bed.name),
        format!("snapshot/{}/public.t/", bed.name),
    ] {
        assert!(ids.iter().any(|id| id.starts_with(&expected)), "{expected} in {ids:?}");
    }

    let password = stack::endpoints().source.split(['@', ':']).nth(2).expect("a password").to_owned();
    assert!(password.len() >= 8, "a password that can be looked for");
    let ours = client.list_workflows(String::new(), Default::default());
    let mut all = std::pin::pin!(ours);
    let mut histories = 0;
    while let Some(workflow) = all.next().await {
        let workflow = workflow.expect("a workflow");
        let handle = client.get_workflow_handle::<temporalio_client::UntypedWorkflow>(workflow.id());
        let mut history = handle.fetch_history(Default::default());
        while let Some(event) = history.next().await {
            let text = format!("{:?}", event.expect("an event"));
            for secret in [password.as_str(), ROW_MARKER] {
                let found = text.contains(secret) || text.contains(&debug_bytes(secret));
                assert!(!found, "{} holds {secret}: {text}", workflow.id());
            }
        }
        histories += 1;
    }
    assert!(histories >= 3);
}

/// How `Debug` prints the text as a vector of bytes.
fn debug_bytes(text: &str) -> String {
    text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ")
}
