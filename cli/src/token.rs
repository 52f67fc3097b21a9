//! `millrace token`.
//!
//! I/O rim; reading a lifetime is pure.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use millrace_proto::v1::{
    CreateTokenRequest, ListTokensRequest, ListTokensResponse, RevokeTokenRequest, Token, token,
};
use millrace_terms::{Code, Error};

use crate::client::output::{Column, grid};
use crate::client::{Client, ClientArguments, call, figures};

/// Arguments of `millrace token`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  export MILLRACE_TOKEN=$(millrace token create me --role admin --expires-in never)
  millrace token create ci --role operator --expires-in 30d
  millrace token list
  millrace token revoke ci")]
pub struct TokenArguments {
    #[command(subcommand)]
    command: TokenCommand,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it: it is shown this once
    Create(CreateArguments),
    /// List the tokens, without their text
    List,
    /// Delete a token: nobody gets in with it any more
    Revoke(RevokeArguments),
}

#[derive(Debug, Args)]
struct CreateArguments {
    /// Name of the token: lower-case letters, digits and `-`
    name: String,
    /// What its holder may do: viewers see everything but secrets, operators change peers and mirrors, admins
    /// make tokens and read the audit log
    #[arg(long, value_name = "ROLE", value_enum)]
    role: Role,
    /// How long it is good: hours or days, such as 12h or 30d, or never
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    expires_in: Lifetime,
}

#[derive(Debug, Args)]
struct RevokeArguments {
    /// Name of the token
    name: String,
}

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Viewer,
    Operator,
    Admin,
}

/// How long a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Never,
    For(Duration),
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: TokenArguments) -> anyhow::Result<ExitCode> {
    let output = arguments.client.output;
    match arguments.command {
        TokenCommand::Create(create) => {
            let request = create.request()?;
            let mut client = Client::connect(&arguments.client.link).await?;
            let answer = client.access.create_token(call(request)).await?.into_inner();
            // The text alone, so that a shell can take it into a variable.
            output.print(&answer, |answer| answer.secret.clone())?;
        }
        TokenCommand::List => {
            let mut client = Client::connect(&arguments.client.link).await?;
            output.print(&list(&mut client).await?, |list| show(&list.tokens))?;
        }
        TokenCommand::Revoke(RevokeArguments { name }) => {
            let mut client = Client::connect(&arguments.client.link).await?;
            let request = RevokeTokenRequest { name: name.clone(), ..Default::default() };
            let answer = client.access.revoke_token(call(request)).await?.into_inner();
            output.print(&answer, |_| format!("token {name} revoked"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl CreateArguments {
    fn request(self) -> Result<CreateTokenRequest, Error> {
        let expire_time = match self.expires_in {
            Lifetime::Never => None,
            Lifetime::For(time) => {
                let end = Timestamp::now()
                    .checked_add(time)
                    .map_err(|error| Error::new(Code::InvalidArgument, format!("--expires-in: {error}")))?;
                Some(millrace_proto::Timestamp { seconds: end.as_second(), nanos: 0 })
            }
        };
        let role = match self.role {
            Role::Viewer => token::Role::Viewer,
            Role::Operator => token::Role::Operator,
            Role::Admin => token::Role::Admin,
        };
        let token = Token { name: self.name, role: role.into(), expire_time, ..Token::default() };
        Ok(CreateTokenRequest { token: Some(token) })
    }
}

/// All pages as one answer.
async fn list(client: &mut Client) -> anyhow::Result<ListTokensResponse> {
    let mut all = ListTokensResponse::default();
    loop {
        let page_token = std::mem::take(&mut all.next_page_token);
        let request = ListTokensRequest { page_size: 0, page_token };
        let page = client.access.list_tokens(call(request)).await?.into_inner();
        all.tokens.extend(page.tokens);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        all.next_page_token = page.next_page_token;
    }
}

fn show(tokens: &[Token]) -> String {
    let columns = ["NAME", "ROLE", "ID", "CREATED BY", "EXPIRES", "LAST USED"].map(Column::Text);
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let rows = tokens.iter().map(|token| {
        vec![
            token.name.clone(),
            token.role().as_str_name().to_lowercase(),
            token.id.clone(),
            or(&token.created_by, "migrate"),
            token.expire_time.as_ref().map_or_else(|| "never".to_owned(), |end| figures::time(Some(end))),
            figures::time(token.last_use_time.as_ref()),
        ]
    });
    grid(&columns, rows)
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime::Never);
    }
    let wrong = || "give hours or days, such as 12h or 30d, or never".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    Ok(Lifetime::For(Duration::from_secs(u64::from(number) * hours * 3_600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read() {
        assert_eq!(lifetime("never"), Ok(Lifetime::Never));
        assert_eq!(lifetime("12h"), Ok(Lifetime::For(Duration::from_secs(43_200))));
        assert_eq!(lifetime("30d"), Ok(Lifetime::For(Duration::from_secs(2_592_000))));
        for wrong in ["", "d", "0d", "30", "-1d", "30 d", "1.5h", "ä"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
