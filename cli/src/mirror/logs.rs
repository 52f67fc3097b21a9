//! `millrace mirror logs`: what happened to a mirror, oldest first.
//!
//! I/O rim; a line is pure.

use std::time::Duration;

use clap::Args;
use millrace_proto::v1::{Event, ListMirrorEventsRequest, ListMirrorEventsResponse};

use crate::client::output::{self, Output};
use crate::client::{Client, call, figures};

/// Time between two looks for new events.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// Events per call.
const PAGE_SIZE: i32 = 1_000;

/// Arguments of `millrace mirror logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// Name of the mirror
    name: String,
    /// Events at most, the newest ones
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Go on with new ones until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(client: &mut Client, arguments: LogsArguments, output: Output) -> anyhow::Result<()> {
    let LogsArguments { name, limit, follow } = arguments;
    let events = newest(client, &name, 0, limit).await?;
    let mut last = events.last().map_or(0, |event| event.id);
    if !follow {
        let answer = ListMirrorEventsResponse { events, next_page_token: String::new() };
        return output.print(&answer, |answer| lines(&answer.events));
    }
    let mut events = events;
    loop {
        for event in &events {
            match output {
                Output::Table => output::write(&line(event))?,
                Output::Json => output::write(&serde_json::to_string(event)?)?,
                Output::Yaml => output::write(&format!("---\n{}", serde_saphyr::to_string(event)?))?,
            }
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
        events = newest(client, &name, last, usize::MAX).await?;
        last = events.last().map_or(last, |event| event.id);
    }
}

/// The newest `limit` events after number `after`, oldest first.
async fn newest(client: &mut Client, name: &str, after: i64, limit: usize) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListMirrorEventsRequest {
            name: name.to_owned(),
            page_size: PAGE_SIZE,
            page_token,
            ..Default::default()
        };
        let page = client.mirrors.list_mirror_events(call(request)).await?.into_inner();
        let has_older = page.events.iter().any(|event| event.id <= after);
        events.extend(page.events.into_iter().filter(|event| event.id > after));
        page_token = page.next_page_token;
        if page_token.is_empty() || has_older || events.len() >= limit {
            events.truncate(limit);
            events.reverse();
            return Ok(events);
        }
    }
}

fn lines(events: &[Event]) -> String {
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(event: &Event) -> String {
    let mut line = format!("{}  {:7}  ", figures::time(event.time.as_ref()), event.severity().as_str_name());
    if !event.table.is_empty() {
        line.push_str(&format!("{}: ", event.table));
    }
    line.push_str(&event.message);
    if !event.code.is_empty() {
        line.push_str(&format!("  [{}]", event.code));
    }
    if !event.remedy.is_empty() {
        line.push_str(&format!("\n    remedy: {}", event.remedy));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_proto::v1::event::Severity;

    #[test]
    fn an_event_is_a_line_with_its_remedy_below() {
        let event = Event {
            table: "public.t".into(),
            severity: Severity::Error.into(),
            code: "TABLE_WITHOUT_KEY".into(),
            message: "no key".into(),
            remedy: "Add one.".into(),
            ..Default::default()
        };
        insta::assert_snapshot!(line(&event), @r"
        -  ERROR    public.t: no key  [TABLE_WITHOUT_KEY]
            remedy: Add one.
        ");
    }
}
