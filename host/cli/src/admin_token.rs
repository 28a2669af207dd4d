//! `switchboard admin-token`: tokens for the admin listener. It uses the configured token, which must have
//! the role admin. It prints the new token once; the host stores only its digest.

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Where};
use super::{Failure, Output, page};
use switchboard_core::config::Config;
use switchboard_postgres::operators::Operator;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The name of the token's owner, for the audit. Without it, the command lists all tokens.
    name: Option<String>,
    /// The role: read, deploy (also release), or admin (everything).
    #[arg(long, value_enum, requires = "name")]
    role: Option<Role>,
    /// Revoke the token.
    #[arg(long, requires = "name", conflicts_with = "role")]
    revoke: bool,
    /// List the tokens; the same as without any argument.
    #[arg(long, conflicts_with_all = ["name", "role", "revoke"])]
    list: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Read,
    Deploy,
    Admin,
}

#[derive(Deserialize)]
struct Listed {
    tokens: Vec<Operator>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let Some(name) = &args.name else {
        let Listed { tokens } = client.get("/admin/v1/tokens").await?;
        let line =
            |one: &Operator| format!("{} may {}, by {} at {}", one.name, one.role, one.made_by, one.made_at);
        let lines: Vec<_> = tokens.iter().map(line).collect();
        let text = if lines.is_empty() {
            "there is no token beside that of the first admin".to_owned()
        } else {
            lines.join("\n")
        };
        out.answer(&json!({ "tokens": tokens }), text);
        return Ok(());
    };
    if args.revoke {
        let path = format!("/admin/v1/tokens/{}/revoke", page::escape(name));
        let done: Value = client.post(&path, &json!({})).await?;
        out.answer(&done, format!("{name} has no token any more"));
        return Ok(());
    }
    let role = match args.role {
        Some(Role::Read) => "read",
        Some(Role::Deploy) => "deploy",
        Some(Role::Admin) => "admin",
        None => {
            let reason = format!(
                "the token of {name} needs a role: --role read, deploy or admin; --revoke ends the token"
            );
            return Err(Failure::Usage(reason));
        }
    };
    let made: Value = client.post("/admin/v1/tokens", &json!({ "name": name, "role": role })).await?;
    out.progress(format_args!("the token of {name}, who may {role}; it is not shown again:"));
    let token = made["token"].as_str().unwrap_or_default().to_owned();
    out.answer(&made, token);
    Ok(())
}
