//! How the installation and stored mirrors are judged, from facts. Pure.

use catalog::failure::Failure;
use catalog::health::{self, Health};
use catalog::mirrors::Mirror;
use catalog::state::MirrorState;
use jiff::Timestamp;
use millrace_catalog as catalog;
use millrace_terms::check::{Check, Name, Rule, Skew, Verdict, judge};
use millrace_terms::{Code, Error, Result};

/// What is known of the installation.
#[derive(Debug, Clone)]
pub(crate) struct InstallationFacts {
    /// Whether the catalog answers and its schema is what is needed.
    pub(crate) catalog: Result<()>,
    /// The version that is needed.
    pub(crate) catalog_version: u32,
    /// How far the catalog's clock is from ours.
    pub(crate) clock: Result<Skew>,
    /// Whether every stored peer can be opened.
    pub(crate) secrets: Result<()>,
    /// Whether Temporal answers for the namespace.
    pub(crate) temporal: Result<()>,
    /// The namespace.
    pub(crate) namespace: String,
    /// Search attributes that are not registered.
    pub(crate) attributes_missing: Result<Vec<String>>,
    /// The schedule of the housekeeping.
    pub(crate) housekeeping: Result<Schedule>,
    /// The task queues.
    pub(crate) queues: Vec<QueueFacts>,
}

/// A schedule in Temporal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// There is none.
    Missing,
    /// Somebody paused it.
    Paused,
    /// It runs.
    Running,
}

/// A task queue.
#[derive(Debug, Clone)]
pub(crate) struct QueueFacts {
    /// Its name.
    pub(crate) name: String,
    /// Which of `--queues` polls it.
    pub(crate) option: &'static str,
    /// Workers that polled it a moment ago, for everything that it is for.
    pub(crate) pollers: Result<usize>,
}

const RULES: &[Rule<InstallationFacts>] = &[
    Rule {
        name: Name::CatalogVersion,
        judge: |facts| Some(Verdict::of(&facts.catalog, format!("at version {}", facts.catalog_version))),
    },
    Rule { name: Name::CatalogClock, judge: clock },
    Rule {
        name: Name::SecretKeys,
        judge: |facts| Some(Verdict::of(&facts.secrets, "every stored peer can be opened")),
    },
    Rule {
        name: Name::Temporal,
        judge: |facts| {
            Some(Verdict::of(&facts.temporal, format!("answers for the namespace {}", facts.namespace)))
        },
    },
    Rule { name: Name::SearchAttributes, judge: search_attributes },
    Rule { name: Name::Housekeeping, judge: housekeeping },
];

const QUEUE_RULES: &[Rule<QueueFacts>] = &[Rule { name: Name::Workers, judge: workers }];

/// Judges the installation.
pub(crate) fn installation(facts: &InstallationFacts) -> Vec<Check> {
    let queues = facts
        .queues
        .iter()
        .flat_map(|queue| judge(QUEUE_RULES, queue).into_iter().map(|check| check.on(&queue.name)));
    judge(RULES, facts).into_iter().chain(queues).collect()
}

/// Nothing more is said of a part that does not answer at all.
fn clock(facts: &InstallationFacts) -> Option<Verdict> {
    facts.clock.as_ref().ok().map(|skew| Verdict::of_clock("the catalog", *skew))
}

fn search_attributes(facts: &InstallationFacts) -> Option<Verdict> {
    let missing = match &facts.attributes_missing {
        Ok(missing) => missing.join(", "),
        Err(_) if facts.temporal.is_err() => return None,
        Err(error) => return Some(Verdict::Warn(error.clone())),
    };
    if missing.is_empty() {
        return Some(Verdict::Pass("registered".into()));
    }
    let commands: Vec<String> = missing
        .split(", ")
        .map(|name| {
            let namespace = &facts.namespace;
            format!("`temporal operator search-attribute create --namespace {namespace} --name {name} --type Keyword`")
        })
        .collect();
    let why = format!("not registered in the namespace {}: {missing}", facts.namespace);
    Some(Verdict::Fail(
        Error::new(Code::TemporalSetup, why).with_remedy(format!("Run {}.", commands.join(", "))),
    ))
}

fn housekeeping(facts: &InstallationFacts) -> Option<Verdict> {
    let failed = |why: &str, remedy: &str| {
        Some(Verdict::Fail(Error::new(Code::TemporalSetup, why).with_remedy(remedy)))
    };
    match &facts.housekeeping {
        Ok(Schedule::Running) => Some(Verdict::Pass("scheduled".into())),
        Ok(Schedule::Paused) => failed(
            "the schedule of the housekeeping is paused: slots of quiet databases fill their source's disk",
            "Unpause it: `temporal schedule toggle --unpause --schedule-id PREFIX-housekeeping`.",
        ),
        Ok(Schedule::Missing) => failed(
            "there is no schedule of the housekeeping: slots of quiet databases fill their source's disk",
            "Restart a worker: it makes the schedule.",
        ),
        Err(_) if facts.temporal.is_err() => None,
        Err(error) => Some(Verdict::Warn(error.clone())),
    }
}

fn workers(queue: &QueueFacts) -> Option<Verdict> {
    let pollers = match &queue.pollers {
        Ok(pollers) => *pollers,
        Err(error) => return Some(Verdict::Fail(error.clone())),
    };
    if pollers > 0 {
        let plural = if pollers == 1 { "" } else { "s" };
        return Some(Verdict::Pass(format!("{pollers} worker{plural}")));
    }
    let why = format!("no worker polls the task queue {}", queue.name);
    let remedy = format!(
        "Start a worker with this queue (`millrace worker --queues {}`, or all of them by default) on the same Temporal namespace and queue prefix.",
        queue.option
    );
    Some(Verdict::Fail(Error::new(Code::NoWorkers, why).with_remedy(remedy)))
}

/// What is known of a stored mirror.
#[derive(Debug, Clone)]
pub(crate) struct MirrorFacts {
    /// The mirror.
    pub(crate) mirror: Mirror,
    /// Whether its workflow runs.
    pub(crate) workflow_runs: Result<bool>,
    /// When it was looked at.
    pub(crate) now: Timestamp,
}

const MIRROR_RULES: &[Rule<MirrorFacts>] = &[
    Rule { name: Name::Workflow, judge: workflow },
    Rule { name: Name::State, judge: state },
    Rule { name: Name::Stream, judge: stream },
];

/// Judges a stored mirror, and each of its tables that is in error.
pub(crate) fn mirror(facts: &MirrorFacts) -> Vec<Check> {
    let tables = facts.mirror.tables.iter().filter_map(|table| {
        let error = as_error(table.error.as_ref()?);
        Some(Check::fail(Name::State, &error).on(table.source.to_string()))
    });
    judge(MIRROR_RULES, facts).into_iter().chain(tables).collect()
}

fn workflow(facts: &MirrorFacts) -> Option<Verdict> {
    let ended = matches!(facts.mirror.state, MirrorState::Completed | MirrorState::Dropping);
    match &facts.workflow_runs {
        _ if ended => None,
        Ok(true) => Some(Verdict::Pass("runs".into())),
        Ok(false) => {
            let why = format!("the workflow of mirror {} does not run", facts.mirror.name());
            let remedy = format!("Run `millrace mirror resume {}`: it starts it again.", facts.mirror.name());
            Some(Verdict::Fail(Error::new(Code::MirrorState, why).with_remedy(remedy)))
        }
        Err(error) => Some(Verdict::Fail(error.clone())),
    }
}

fn state(facts: &MirrorFacts) -> Option<Verdict> {
    let (mirror, state) = (&facts.mirror, facts.mirror.state);
    if let Some(error) = &mirror.error {
        return Some(Verdict::Fail(as_error(error)));
    }
    if state == MirrorState::Paused {
        let why = format!("mirror {} is PAUSED: its slot holds the source's log", mirror.name());
        let remedy =
            format!("Run `millrace mirror resume {}` before the source's disk is full.", mirror.name());
        return Some(Verdict::Warn(Error::new(Code::MirrorState, why).with_remedy(remedy)));
    }
    Some(Verdict::Pass(state.to_string()))
}

fn stream(facts: &MirrorFacts) -> Option<Verdict> {
    // Said by the check of the state.
    if matches!(facts.mirror.state, MirrorState::Paused | MirrorState::Failed) {
        return None;
    }
    let judged = facts.mirror.streams.iter().map(|stream| health::judge(&facts.mirror, stream, facts.now));
    match health::worst(judged) {
        Health::Stalled(reason) => Some(Verdict::Fail(as_error(&reason))),
        _ => Some(Verdict::Pass("not stalled".into())),
    }
}

/// A stored failure as the error that it was. A code of a newer release is not known here.
fn as_error(failure: &Failure) -> Error {
    let code = failure.code.parse().unwrap_or(Code::Internal);
    Error::new(code, failure.message.clone()).with_remedy(failure.remedy.clone())
}

#[cfg(test)]
mod tests {
    use millrace_terms::check::Status;

    use super::*;

    fn good() -> InstallationFacts {
        let queue = |option| QueueFacts { name: format!("millrace-{option}"), option, pollers: Ok(2) };
        InstallationFacts {
            catalog: Ok(()),
            catalog_version: 9,
            clock: Ok(Skew::default()),
            secrets: Ok(()),
            temporal: Ok(()),
            namespace: "default".into(),
            attributes_missing: Ok(Vec::new()),
            housekeeping: Ok(Schedule::Running),
            queues: ["control", "snapshot", "stream"].map(queue).into(),
        }
    }

    #[test]
    fn each_fault_of_the_installation_is_told_with_what_mends_it() {
        let away = || Error::new(Code::TemporalUnreachable, "refused");
        let mut unpolled = good();
        unpolled.queues[2].pollers = Ok(0);
        let cases: Vec<(InstallationFacts, &[&str], &str)> = vec![
            (good(), &[], ""),
            (
                InstallationFacts { catalog: Err(Error::new(Code::CatalogVersion, "older")), ..good() },
                &["catalog_version"],
                "millrace migrate",
            ),
            (
                InstallationFacts { secrets: Err(Error::new(Code::SecretKeyMissing, "k2")), ..good() },
                &["secret_keys"],
                "MILLRACE_SECRET_KEYS",
            ),
            (
                InstallationFacts { clock: Ok(Skew::new(9_000_000, 0, 0)), ..good() },
                &["catalog_clock"],
                "NTP",
            ),
            (
                InstallationFacts {
                    temporal: Err(away()),
                    attributes_missing: Err(away()),
                    housekeeping: Err(away()),
                    ..good()
                },
                &["temporal"],
                "MILLRACE_TEMPORAL_ADDRESS",
            ),
            (
                InstallationFacts { attributes_missing: Ok(vec!["MirrorName".into()]), ..good() },
                &["search_attributes"],
                "search-attribute create --namespace default --name MirrorName",
            ),
            (
                InstallationFacts { housekeeping: Ok(Schedule::Paused), ..good() },
                &["housekeeping"],
                "unpause",
            ),
            (
                InstallationFacts { housekeeping: Ok(Schedule::Missing), ..good() },
                &["housekeeping"],
                "Restart",
            ),
            (unpolled, &["workers"], "--queues stream"),
        ];
        for (facts, expected, remedy) in cases {
            let told: Vec<_> =
                installation(&facts).into_iter().filter(|check| check.status != Status::Pass).collect();
            let names: Vec<&str> = told.iter().map(|check| check.name.as_str()).collect();
            assert_eq!(names, expected, "{facts:?}");
            assert!(told.iter().all(|check| check.remedy.contains(remedy)), "{told:?}");
        }
    }
}
