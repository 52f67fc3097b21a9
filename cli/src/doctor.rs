//! `millrace doctor`.
//!
//! I/O rim; what it shows is pure.

use std::process::ExitCode;

use clap::Args;
use millrace_proto::v1::{Check, Diagnosis, DoctorRequest, DoctorResponse, check, diagnosis};

use crate::client::output;
use crate::client::{Client, ClientArguments, call_of};
use crate::failure;

/// Arguments of `millrace doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace doctor                      everything
  millrace doctor --mirror shop        the installation, and one mirror with both its peers
  millrace doctor --failed -o json     for programs: only what is not as it has to be")]
pub struct DoctorArguments {
    /// Only this peer, beside the installation; may be given several times
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<String>,
    /// Only this mirror, with both its peers; may be given several times
    #[arg(long = "mirror", value_name = "NAME")]
    mirrors: Vec<String>,
    /// Leave out the checks that passed
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: DoctorArguments) -> anyhow::Result<ExitCode> {
    let DoctorArguments { peers, mirrors, failed, client: ClientArguments { link, output, .. } } = arguments;
    let mut client = Client::connect(&link).await?;
    let request = call_of("Doctor", DoctorRequest { peers, mirrors });
    let mut answer = client.system.doctor(request).await?.into_inner();
    let checks: Vec<Check> = answer.diagnoses.iter().flat_map(|found| found.checks.clone()).collect();
    if failed {
        for diagnosis in &mut answer.diagnoses {
            diagnosis.checks.retain(|check| check.status() != check::Status::Pass);
        }
    }
    output.print(&answer, |answer| shown(answer, &checks))?;
    Ok(failure::of_checks(&checks))
}

fn shown(answer: &DoctorResponse, all: &[Check]) -> String {
    let mut parts: Vec<String> = answer.diagnoses.iter().map(part).collect();
    parts.push(sum(all));
    parts.join("\n\n")
}

fn part(diagnosis: &Diagnosis) -> String {
    let title = match diagnosis.kind() {
        diagnosis::Kind::Peer => format!("peer {}", diagnosis.name),
        diagnosis::Kind::Mirror => format!("mirror {}", diagnosis.name),
        diagnosis::Kind::Installation | diagnosis::Kind::Unspecified => "installation".to_owned(),
    };
    match diagnosis.checks.is_empty() {
        true => format!("{title}\nnothing to tell of"),
        false => format!("{title}\n{}", output::checks(&diagnosis.checks)),
    }
}

fn sum(checks: &[Check]) -> String {
    let count = |status| checks.iter().filter(|check| check.status() == status).count();
    let [passed, warned, failed] = [check::Status::Pass, check::Status::Warn, check::Status::Fail].map(count);
    format!("{passed} passed, {warned} warnings, {failed} failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_is_shown_by_parts_with_remedies_and_a_sum() {
        let check = |name: &str, status: check::Status| Check {
            name: name.into(),
            status: status.into(),
            message: "seen".into(),
            ..Default::default()
        };
        let failed = Check {
            code: "SOURCE_PERMISSION".into(),
            remedy: "Run `GRANT SELECT ON \"public\".\"t\" TO \"r\";`.".into(),
            subject: "public.t".into(),
            ..check("read_privilege", check::Status::Fail)
        };
        let part = |kind: diagnosis::Kind, name: &str, checks| Diagnosis {
            kind: kind.into(),
            name: name.into(),
            checks,
        };
        let answer = DoctorResponse {
            ok: false,
            diagnoses: vec![
                part(diagnosis::Kind::Installation, "", vec![check("temporal", check::Status::Pass)]),
                part(diagnosis::Kind::Mirror, "shop", vec![failed]),
            ],
        };
        let all: Vec<Check> = answer.diagnoses.iter().flat_map(|found| found.checks.clone()).collect();
        insta::assert_snapshot!(shown(&answer, &all), @r#"
        installation
        ok    temporal: seen

        mirror shop
        FAIL  read_privilege public.t: seen
              remedy: Run `GRANT SELECT ON "public"."t" TO "r";`.
              code: SOURCE_PERMISSION

        1 passed, 0 warnings, 1 failed
        "#);
    }
}
