//! What is wrong after a sync, by the contents before and after it and by what was said. Apart from the code: which of two
//! revisions goes on is found from the versions alone (`expect`).

use std::collections::{BTreeMap, BTreeSet};

use super::content::{Both, Content, Found, Relation, show};
use super::exchange::{LeftOut, Outcome, Report, full_name};
use super::expect::{self, Comes, Told, Want};
use super::past::clip;
use super::plan::{ACTIVE, CollectionPlan, Filter, PASSIVE, Plan};

/// The exit code of a sync that has left something out.
const EXIT_INCOMPLETE: i32 = 7;

/// What is wrong after a run; empty if nothing is.
pub struct Judge<'a> {
    plan: &'a Plan,
    before: &'a Both,
    after: &'a Both,
    outcome: &'a Outcome,
    /// What was said in runs before.
    earlier: &'a [Report],
    /// Whether the passive side has synced with others, which have proven no name either: their lists are one.
    shares_list: bool,
    /// Documents that have to be told.
    listed: BTreeSet<(String, String)>,
    violations: Vec<String>,
}

/// What was said of documents that were not synced: collection, ID, what.
type Errors<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

impl<'a> Judge<'a> {
    pub fn new(plan: &'a Plan, before: &'a Both, after: &'a Both, outcome: &'a Outcome) -> Judge<'a> {
        Judge {
            plan,
            before,
            after,
            outcome,
            earlier: &[],
            shares_list: false,
            listed: BTreeSet::new(),
            violations: Vec::new(),
        }
    }

    pub fn after_reports(mut self, earlier: &'a [Report]) -> Judge<'a> {
        self.earlier = earlier;
        self
    }

    pub fn with_a_shared_list(mut self) -> Judge<'a> {
        self.shares_list = true;
        self
    }

    /// Judges a sync.
    pub fn run(mut self) -> Vec<String> {
        self.end();
        let (errors, back) = (self.errors(), self.errors_back());
        let back = if self.shares_list { Errors::new() } else { back };
        for collection in &self.plan.collections {
            self.collection(collection, &errors, &back);
        }
        self.counts();
        self.successes();
        if !self.shares_list {
            self.passive_side();
        }
        self.exit();
        self.violations
    }

    fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    /// How the whole ended, and what was said of collections.
    fn end(&mut self) {
        let expected = expect::run(self.plan, self.before);
        match (&self.outcome.error, expected.error) {
            (Some(error), Comes::No) => self.wrong(format!("it ended early: {error}")),
            (None, Comes::Must) => self.wrong("it ended as if nothing were missing or refused".into()),
            _ => {}
        }
        let said = &self.outcome.left_out.collections;
        for ((name, what), comes) in &expected.lacks {
            let is_said = said.iter().any(|(said, why)| said == name && why.starts_with(what));
            if *comes == Comes::Must && !is_said {
                self.wrong(format!("{name}: {what}, and nobody says so"));
            }
        }
        for (name, why) in said {
            let comes = |(expected, what): &&(String, &str)| expected == name && why.starts_with(*what);
            let known = expected.lacks.iter().find(|(key, _)| comes(key));
            if known.is_none_or(|(_, comes)| *comes == Comes::No) {
                self.wrong(format!("{name}: said without a reason that the plan knows: {why}"));
            }
        }
    }

    /// What the active side said of documents that were not replicated, except for those left out on purpose.
    fn errors(&mut self) -> Errors<'a> {
        let mut errors = BTreeMap::new();
        for report in self.outcome.reports.iter().chain(&self.outcome.left_out.listed) {
            let Some(error) = &report.error else { continue };
            let filter = |c: &CollectionPlan| c.pull_filter.filter(|_| !report.sent);
            if error.contains("refused by a filter") && self.is_refused(report, filter) {
                continue;
            }
            errors.insert((report.collection.as_str(), report.id.as_str()), error.as_str());
        }
        errors
    }

    /// The same of the passive side, except for conflicts, which the active side settles.
    fn errors_back(&mut self) -> Errors<'a> {
        let mut errors = BTreeMap::new();
        for report in self.outcome.passive_reports.iter().chain(&self.outcome.passive_left_out.listed) {
            let Some(error) = &report.error else { continue };
            let (incoming, outgoing) = (self.plan.incoming, |c: &CollectionPlan| c.pull_filter);
            let is_filtered = match report.sent {
                true => self.is_refused(report, outgoing),
                false => self.is_refused(report, |_| incoming),
            };
            if (error.contains("refused by a filter") && is_filtered) || error.contains("conflicts with") {
                continue;
            }
            errors.insert((report.collection.as_str(), report.id.as_str()), error.as_str());
        }
        errors
    }

    fn is_refused(&self, report: &Report, filter: impl Fn(&CollectionPlan) -> Option<Filter>) -> bool {
        let collection = self.plan.collections.iter().find(|c| full_name(&c.name) == report.collection);
        collection.and_then(filter).is_some_and(|filter| !filter.passes(&report.id))
    }

    fn collection(&mut self, collection: &CollectionPlan, errors: &Errors<'_>, back: &Errors<'_>) {
        let name = full_name(&collection.name);
        let documents = |content: &'a Content| content.get(&name).into_iter().flat_map(BTreeMap::keys);
        let ids: BTreeSet<&String> =
            self.before.iter().chain(self.after.iter()).flat_map(documents).collect();
        let get = |content: &'a Content, id: &str| content.get(&name).and_then(|documents| documents.get(id));
        for id in ids {
            let before = [get(&self.before[ACTIVE], id), get(&self.before[PASSIVE], id)];
            let after = [get(&self.after[ACTIVE], id), get(&self.after[PASSIVE], id)];
            let key = (name.as_str(), id.as_str());
            let said = [errors.get(&key).copied(), back.get(&key).copied()];
            if let Some(problem) = self.document(collection, id, before, after, said) {
                self.wrong(format!(
                    "{name} {:?}: {problem}; told: {said:?}\n    before: {}\n            {}\n    after:  {}\n            {}",
                    clip(id), show(before[0]), show(before[1]), show(after[0]), show(after[1]),
                ));
            }
        }
    }

    /// What is wrong with one document.
    fn document(
        &mut self,
        collection: &CollectionPlan,
        id: &str,
        before: [Option<&'a Found>; 2],
        after: [Option<&'a Found>; 2],
        said: [Option<&str>; 2],
    ) -> Option<String> {
        let expected = expect::document(self.plan, collection, id, before);
        let unchanged = [ACTIVE, PASSIVE].into_iter().all(|side| is_same(before[side], after[side]));
        if expected.relation == Some(Relation::Crossing) && unchanged && said[0].is_some() {
            // The passive side puts its own into its feed once more, perhaps behind the end of what this run hears.
            self.listed.insert((full_name(&collection.name), id.to_owned()));
            return None;
        }
        for side in [ACTIVE, PASSIVE] {
            let is_early = side == PASSIVE && expected.later && is_same(after[ACTIVE], after[PASSIVE]);
            if !is_early && !is_as_wanted(after[side], &expected.content[side]) {
                let side_name = ["active", "passive"][side];
                return Some(match &expected.content[side] {
                    Want::As(found) => format!("the {side_name} side should have {}", show(*found)),
                    Want::New(body) => format!("the {side_name} side should have a new revision: {body:?}"),
                });
            }
        }
        let is_equal = is_same(after[ACTIVE], after[PASSIVE]);
        if let [Want::New(_), Want::New(_)] = expected.content
            && !is_equal
        {
            return Some("each side has a new revision of its own".into());
        }
        let was_told = self.was_told(&full_name(&collection.name), id);
        match (said[0], expected.told) {
            (Some(_), _) if is_equal => Some("reported, but both sides are equal".into()),
            (Some(""), _) => Some("reported without a word why".into()),
            (Some(_), Told::Nothing) if !was_told => {
                Some("reported without a reason that the plan knows".into())
            }
            (None, Told::Listed { .. }) if !was_told => Some("not a word that the sides differ".into()),
            (_, Told::Listed { back }) => {
                self.listed.insert((full_name(&collection.name), id.to_owned()));
                (back && said[1].is_none() && !self.shares_list && !self.is_back_cut())
                    .then(|| "the passive side says nothing".into())
            }
            _ if said[1].is_some() && !was_told => {
                Some("the passive side reports it without a reason".into())
            }
            _ => None,
        }
    }

    fn was_told(&self, collection: &str, id: &str) -> bool {
        let is_it =
            |report: &Report| report.collection == collection && report.id == id && report.error.is_some();
        self.earlier.iter().any(is_it)
    }

    /// Whether the passive side names a part only of what it lists.
    fn is_back_cut(&self) -> bool {
        let LeftOut { documents, listed, .. } = &self.outcome.passive_left_out;
        *documents > listed.len() as u64
    }

    /// As many as there are.
    fn counts(&mut self) {
        let LeftOut { documents, listed, .. } = &self.outcome.left_out;
        let (told, due) = (*documents, self.listed.len() as u64);
        if told < due {
            self.wrong(format!("{told} documents are said to be left out, {due} are"));
        }
        if due == 0 && told > 0 && self.earlier.is_empty() {
            self.wrong(format!("{told} documents are said to be left out, none is: {listed:?}"));
        }
        if self.outcome.error.is_none() && due > 0 && told == 0 {
            self.wrong("the closing report says that nothing is left out".into());
        }
    }

    /// What was reported as sent or received is there.
    fn successes(&mut self) {
        let there = |report: &Report, side: usize| {
            let documents = self.after[side].get(&report.collection);
            report.error.is_some() || documents.is_some_and(|documents| documents.contains_key(&report.id))
        };
        let of = |report: &Report, sent_to: usize| if report.sent { sent_to } else { 1 - sent_to };
        let active = self.outcome.reports.iter().filter(|report| !there(report, of(report, PASSIVE)));
        let passive = self.outcome.passive_reports.iter().filter(|report| !there(report, of(report, ACTIVE)));
        let missing: Vec<String> = active
            .chain(passive)
            .map(|r| format!("{} {:?} was reported as done and is not there", r.collection, r.id))
            .collect();
        self.violations.extend(missing);
    }

    /// The passive side lists nothing that is not left out. In later runs its list may be that of several peers.
    fn passive_side(&mut self) {
        let LeftOut { listed, documents, .. } = &self.outcome.passive_left_out;
        let is_due = |report: &&Report| self.listed.contains(&(report.collection.clone(), report.id.clone()));
        if self.earlier.is_empty() {
            let unknown: Vec<&Report> = listed.iter().filter(|report| !is_due(report)).take(3).collect();
            if !unknown.is_empty() {
                self.wrong(format!("the passive side lists {documents}, among them {unknown:?}"));
            }
        }
    }

    /// The exit code says what the events say.
    fn exit(&mut self) {
        let Some((code, ok)) = self.outcome.exit else { return };
        let LeftOut { documents, collections, .. } = &self.outcome.left_out;
        let is_whole = *documents == 0 && collections.is_empty();
        let fits = match &self.outcome.error {
            Some(_) => code != 0 && code != EXIT_INCOMPLETE && !ok,
            None if is_whole => code == 0 && ok,
            None => code == EXIT_INCOMPLETE && !ok,
        };
        if !fits {
            let what = format!("{:?}, {documents} documents, {collections:?} left out", self.outcome.error);
            self.wrong(format!("exit code {code}, ok {ok}, with {what}"));
        }
    }
}

fn is_same(a: Option<&Found>, b: Option<&Found>) -> bool {
    a.map(|f| (&f.body, f.vector.current)) == b.map(|f| (&f.body, f.vector.current))
}

fn is_as_wanted(after: Option<&Found>, want: &Want<'_>) -> bool {
    match want {
        Want::As(found) => is_same(after, *found),
        Want::New(body) => after.is_some_and(|after| after.body == *body),
    }
}
