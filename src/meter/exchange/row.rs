//! The ledger row that an exchange makes.

use jiff::Timestamp;

use super::Exchange;
use super::headers::{self, billing};
use super::request::{short, shorten};
use crate::meter::charge::charge;
use crate::meter::price::Book;
use crate::meter::row::{Detail, Row};
use crate::meter::secrets;
use crate::meter::surface::{Kind, Reading, class_of_status};
use crate::meter::usage::{Caveat, Usage, UsageState};

impl Exchange {
    /// The row as far as it is known. Attribution (project, process, cwd …) is the caller's to add;
    /// `client` is a guess from `User-Agent` for when the process is not known.
    #[must_use]
    pub fn row(&self, book: &Book) -> Row {
        let reading = self.response.reading();
        let kind = self.response.kind().or(self.route.kind);
        let surfaced = self.response.kind().is_some();
        let late = self.route.reread && reading.deferred;
        let billable = (self.route.billable || surfaced || late)
            && !(self.request.warm_up || reading.warm_up)
            && !self.is_only_a_tunnel()
            && !self.is_only_a_handshake();
        let usage = if billable { self.usage(&reading) } else { Usage::default() };
        let model_requested = self.route.asked(self.request.model.as_deref());
        let model = reading.model.as_deref().and_then(short);
        let error = self.error_class(&reading);
        let plan = self.subscription && !reading.beyond_plan;
        let billing = billing(plan, &self.route.provider, usage.speed.as_deref());
        let subject = self.route.subject.as_ref().or(self.request.subject.as_ref());
        let response_id = subject.or(reading.id.as_ref());
        let mut quota = [&self.quota[..], &reading.quota].concat();
        quota.iter_mut().for_each(|window| window.account.clone_from(&self.account));
        let mut row = Row {
            id: self.start.id,
            started_at: self.start.at,
            ended_at: self.ended_at,
            host: self.start.host.clone(),
            path: self.path.clone(),
            method: self.method.clone(),
            protocol: self.start.protocol,
            provider: self.route.provider.clone(),
            surface: kind.and_then(Kind::name).map(str::to_owned),
            billable,
            model_requested,
            model,
            provider_request_id: self.request_id.clone().or(reading.id.as_deref().and_then(short)),
            response_id: response_id.and_then(|id| short(id)),
            stream: self.stream(),
            status: self.status,
            error_class: error.map(str::to_owned),
            usage: usage.state,
            tokens: usage.tokens,
            web_searches: usage.web_searches,
            tier: usage.tier,
            speed: usage.speed,
            geo: usage.geo,
            cost_nanousd: None,
            price_rule: None,
            cost_estimated: false,
            cost_reason: None,
            provider_cost_nanousd: usage.provider_cost_nanousd,
            list_nanousd: None,
            detail: Detail {
                parts: usage.parts,
                cache_ttl: usage.cache_ttl,
                cached: usage.cached,
                written_12h: usage.written_12h,
                counts: usage.counts,
                refused: usage.refused,
                caveat: usage.caveat,
            },
            quota,
            billing,
            completeness: self.completeness,
            completeness_reason: self.reason.clone(),
            ttfb_ms: self.since_start(self.responded_at),
            duration_ms: self.since_start(self.ended_at),
            request_bytes: Some(self.request.bytes),
            response_bytes: self.responded_at.map(|_| self.response.bytes),
            project: None,
            project_source: None,
            client: self.client.clone(),
            client_pid: None,
            run: None,
            session: self.request.session.clone(),
            agent: self.request.agent.id.clone(),
            agent_parent: self.request.agent.parent.clone(),
            agent_kind: self.request.agent.kind.clone(),
            branch: None,
            cwd: None,
            connection: None,
        };
        secrets::strip(&mut row);
        charge(&mut row, book);
        row
    }

    /// The reading's usage with what only the exchange knows.
    fn usage(&self, reading: &Reading) -> Usage {
        let mut usage = reading.usage.clone();
        shorten(&mut usage);
        headers::complete(&mut usage, &self.header_tokens);
        let answered = self.status.is_some_and(|status| (200..300).contains(&status));
        let told = usage.state != UsageState::Absent || !usage.counts.is_empty();
        if !told && answered && !self.request.counts.is_empty() {
            usage.counts = self.request.counts.clone();
            usage.caveat = Some(Caveat::FromRequest);
        }
        usage.tier = self.tiers.or(usage.tier.as_deref());
        self.request.cache_lifetime(&mut usage);
        usage.geo = self.route.geo.map(str::to_owned).or(usage.geo);
        if usage.state == UsageState::Reported && reading.error.is_some() {
            // It failed on the way: what was said before is what is known.
            usage.state = UsageState::Partial;
        }
        usage.within()
    }

    /// By the status, unless the body says it better; then an error inside a good response; then who
    /// ended it.
    fn error_class(&self, reading: &Reading) -> Option<&'static str> {
        let by_status = self.status.and_then(class_of_status);
        match (by_status, reading.error) {
            (Some(class), Some("in_stream")) => Some(class),
            (_, Some(class)) | (Some(class), None) => Some(class),
            (None, None) => self.cut,
        }
    }

    fn stream(&self) -> Option<bool> {
        self.request.stream.or(self.route.stream).or_else(|| {
            // Not asked for is not streamed, once the answer is there.
            let billable = self.route.billable && self.responded_at.is_some();
            billable.then(|| self.response.is_event_stream())
        })
    }

    fn since_start(&self, at: Option<Timestamp>) -> Option<u64> {
        let elapsed = at?.duration_since(self.start.at).as_millis();
        Some(u64::try_from(elapsed).unwrap_or(0))
    }
}
