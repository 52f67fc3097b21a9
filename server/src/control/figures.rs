//! What people ask of running mirrors beside their states: batches, slots, and all of it together.

use std::sync::Arc;

use jiff::Timestamp;
use millrace_catalog::slots::SlotSeen;
use millrace_proto::v1;
use millrace_terms::{Code, Error};

use super::Control;
use crate::convert::{stream, system};
use crate::fault::{Answer, invalid};
use crate::report;
use crate::text::{Page, name_of};

impl Control {
    /// What the streams of a mirror did, newest first.
    pub(crate) async fn list_batches(
        self: Arc<Self>,
        request: v1::ListBatchesRequest,
    ) -> Answer<v1::ListBatchesResponse> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let name = name_of(&request.name)?;
        let number = request.stream.map(u32::try_from).transpose();
        let number = number.map_err(|_| invalid("stream", "must not be negative"))?;
        let batches = self.catalog.list_batches(name, number, &page.request()).await?;
        if batches.items.is_empty() && page.is_first() {
            self.catalog.get_mirror(name).await?;
        }
        Ok(v1::ListBatchesResponse {
            batches: batches.items.iter().map(stream::batch).collect(),
            next_page_token: batches.next.unwrap_or_default(),
        })
    }

    /// A replication slot of a source, as it is now.
    pub(crate) async fn get_replication_slot(
        self: Arc<Self>,
        request: v1::GetReplicationSlotRequest,
    ) -> Answer<v1::ReplicationSlot> {
        let v1::GetReplicationSlotRequest { name, slot } = request;
        let peer = self.source(&name).await?;
        if slot.is_empty() {
            return Err(invalid("slot", "must be set"));
        }
        let report = self.check_slot(&peer.spec, &slot).await?;
        report::require_success(&report)?;
        let look = report.slot.ok_or_else(|| {
            let message = format!("the source {name} has no replication slot {slot}");
            Error::new(Code::SlotNotFound, message).with("slot", &slot)
        })?;
        let known = self.catalog.stream_of_slot(&name, &slot).await?.and_then(|stream| stream.slot_seen);
        Ok(stream::slot(&slot, &SlotSeen::new(look, Timestamp::now(), known.as_ref())))
    }

    /// How everything is.
    pub(crate) async fn get_system_status(
        self: Arc<Self>,
        _request: v1::GetSystemStatusRequest,
    ) -> Answer<v1::SystemStatus> {
        let version = self.clone().get_version(v1::GetVersionRequest {}).await?;
        let (mirrors, peers, queues) =
            tokio::join!(self.all_mirrors(), self.catalog.count_peers(), self.orchestra.pollers());
        Ok(v1::SystemStatus {
            version: version.version,
            installation: version.installation,
            catalog_version: version.catalog_version,
            queues: queues.iter().map(system::queue).collect(),
            peers: i32::try_from(peers?).unwrap_or(i32::MAX),
            ..system::status(&mirrors?, Timestamp::now())
        })
    }
}
