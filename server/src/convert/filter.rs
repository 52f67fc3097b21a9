//! Which objects a list is asked for.
//!
//! Pure: no I/O.

use catalog::events::{EventFilter, Severity};
use catalog::mirrors::MirrorFilter;
use catalog::peers::PeerFilter;
use catalog::state::MirrorState;
use jiff::Timestamp;
use millrace_catalog as catalog;
use millrace_proto::v1;
use millrace_terms::TableName;

use crate::fault::{Answer, invalid};

/// Bytes of a prefix or a code at most: no name is longer.
const WORD_BYTES_MAX: usize = 256;
/// Where protobuf's times begin, in seconds since 1970.
const YEAR_ONE: i64 = -62_135_596_800;

/// The peers that are asked for.
pub(crate) fn peers(request: &v1::ListPeersRequest) -> Answer<PeerFilter> {
    use v1::peer::Kind;
    let kind = match Kind::try_from(request.kind) {
        Ok(Kind::Unspecified) => "",
        Ok(Kind::Postgres) => "postgres",
        Ok(Kind::Clickhouse) => "clickhouse",
        Err(value) => return Err(invalid("kind", value.to_string())),
    };
    Ok(PeerFilter { kind, name_prefix: word(&request.name_prefix, "name_prefix")? })
}

/// The mirrors that are asked for.
pub(crate) fn mirrors(request: &v1::ListMirrorsRequest) -> Answer<MirrorFilter> {
    use v1::mirror::State;
    let state = |state: &i32| match State::try_from(*state) {
        Ok(State::Setup) => Ok(MirrorState::Setup),
        Ok(State::Snapshot) => Ok(MirrorState::Snapshot),
        Ok(State::Running) => Ok(MirrorState::Running),
        Ok(State::Paused) => Ok(MirrorState::Paused),
        Ok(State::Degraded) => Ok(MirrorState::Degraded),
        Ok(State::Failed) => Ok(MirrorState::Failed),
        Ok(State::Dropping) => Ok(MirrorState::Dropping),
        Ok(State::Completed) => Ok(MirrorState::Completed),
        Ok(State::Unspecified) | Err(_) => Err(invalid("states", format!("{state} is no state"))),
    };
    Ok(MirrorFilter {
        states: request.states.iter().map(state).collect::<Answer<_>>()?,
        source: word(&request.source, "source")?,
        destination: word(&request.destination, "destination")?,
        name_prefix: word(&request.name_prefix, "name_prefix")?,
    })
}

/// The events that are asked for.
pub(crate) fn events(request: &v1::ListMirrorEventsRequest) -> Answer<EventFilter> {
    use v1::event::Severity as Message;
    let min_severity = match Message::try_from(request.min_severity) {
        Ok(Message::Unspecified) => None,
        Ok(Message::Info) => Some(Severity::Info),
        Ok(Message::Warning) => Some(Severity::Warning),
        Ok(Message::Error) => Some(Severity::Error),
        Err(value) => return Err(invalid("min_severity", value.to_string())),
    };
    let table = match request.table.as_str() {
        "" => String::new(),
        // As the mirror writes it, however it was quoted.
        text => text
            .parse::<TableName>()
            .map_err(|_| invalid("table", "is no name of a table: it is SCHEMA.TABLE"))?
            .to_string(),
    };
    Ok(EventFilter {
        table,
        min_severity,
        code: word(&request.code, "code")?,
        from: time(request.start_time.as_ref(), "start_time")?,
        to: time(request.end_time.as_ref(), "end_time")?,
    })
}

fn word(text: &str, field: &str) -> Answer<String> {
    if text.len() > WORD_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(invalid(field, format!("is no word of at most {WORD_BYTES_MAX} bytes")));
    }
    Ok(text.to_owned())
}

fn time(time: Option<&millrace_proto::Timestamp>, field: &str) -> Answer<Option<Timestamp>> {
    let Some(time) = time else { return Ok(None) };
    match Timestamp::new(time.seconds, time.nanos) {
        Ok(moment) if time.seconds >= YEAR_ONE => Ok(Some(moment)),
        _ => Err(invalid(field, "must be in the years 1 to 9999")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_named() {
        let peers_of = |kind| peers(&v1::ListPeersRequest { kind, ..Default::default() });
        assert_eq!(peers_of(2).map(|filter| filter.kind), Ok("clickhouse"));
        assert_eq!(peers_of(77).unwrap_err().field_names(), ["kind"]);
        let mirrors_in = |states| mirrors(&v1::ListMirrorsRequest { states, ..Default::default() });
        assert_eq!(mirrors_in(vec![3]).unwrap().states, [MirrorState::Running]);
        assert_eq!(mirrors_in(vec![0]).unwrap_err().field_names(), ["states"]);
        let quoted = v1::ListMirrorEventsRequest { table: "\"public\".\"t\"".into(), ..Default::default() };
        assert_eq!(events(&quoted).unwrap().table, "public.t");
        let never = millrace_proto::Timestamp { seconds: i64::MAX, nanos: 0 };
        let never = v1::ListMirrorEventsRequest { end_time: Some(never), ..Default::default() };
        assert_eq!(events(&never).unwrap_err().field_names(), ["end_time"]);
    }
}
