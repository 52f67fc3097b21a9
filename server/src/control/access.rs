//! Tokens and the audit log: create, list, revoke; list.

use std::sync::Arc;

use jiff::Timestamp;
use millrace_catalog::audit::Filter;
use millrace_catalog::tokens::NewToken;
use millrace_proto::v1;
use millrace_terms::Code;
use secrecy::ExposeSecret as _;

use super::Control;
use crate::access::Caller;
use crate::convert::access;
use crate::fault::{Answer, Violations, invalid};
use crate::text::{Page, check_name, name_of};

impl Control {
    /// Makes a token for whoever `caller` gives it to.
    pub(crate) async fn create_token(
        self: Arc<Self>,
        request: v1::CreateTokenRequest,
        caller: Caller,
    ) -> Answer<v1::CreateTokenResponse> {
        let asked = request.token.ok_or_else(|| invalid("token", "must be set"))?;
        let mut violations = Violations::default();
        check_name(&asked.name, "token.name", &mut violations);
        violations.into_result()?;
        let new = NewToken {
            role: access::to_role(asked.role())?,
            expires_at: access::to_end(asked.expire_time.as_ref(), Timestamp::now())?,
            name: asked.name,
            created_by: caller.name,
        };
        let (token, secret) = self.catalog.create_token(&new).await?;
        Ok(v1::CreateTokenResponse {
            token: Some(access::token(&token)),
            secret: secret.expose_secret().to_owned(),
        })
    }

    /// Tokens by name, without their text.
    pub(crate) async fn list_tokens(
        self: Arc<Self>,
        request: v1::ListTokensRequest,
    ) -> Answer<v1::ListTokensResponse> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let tokens = self.catalog.list_tokens(&page.request()).await?;
        Ok(v1::ListTokensResponse {
            tokens: tokens.items.iter().map(access::token).collect(),
            next_page_token: tokens.next.unwrap_or_default(),
        })
    }

    /// Deletes a token; this server forgets it at once.
    pub(crate) async fn revoke_token(
        self: Arc<Self>,
        request: v1::RevokeTokenRequest,
    ) -> Answer<v1::RevokeTokenResponse> {
        match self.catalog.delete_token(name_of(&request.name)?).await {
            Ok(token) => self.access.forget(&token.id),
            Err(error) if error.code() == Code::TokenNotFound && request.allow_missing => {}
            Err(error) => return Err(error.into()),
        }
        Ok(v1::RevokeTokenResponse {})
    }

    /// What was changed through the API, newest first.
    pub(crate) async fn list_audit_entries(
        self: Arc<Self>,
        request: v1::ListAuditEntriesRequest,
    ) -> Answer<v1::ListAuditEntriesResponse> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let filter = Filter { caller: request.caller, subject: request.subject };
        let entries = self.catalog.list_audit_entries(&filter, &page.request()).await?;
        Ok(v1::ListAuditEntriesResponse {
            entries: entries.items.into_iter().map(access::audit_entry).collect(),
            next_page_token: entries.next.unwrap_or_default(),
        })
    }
}
