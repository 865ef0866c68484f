//! `WHERE` clauses in the making: which rows are asked for, and how they are found.

use rusqlite::types::Value;
use uuid::Uuid;

use super::report::Window;
use super::seen::{Kind, MINUTE, minute};

/// Names of which a row is to have one.
#[derive(Clone, Debug)]
pub(super) enum Named {
    One(Kind, Vec<Value>),
    /// A run, or one within it: `RUN`, `RUN/…`.
    Run(String),
}

impl Named {
    /// By recorded names.
    pub(super) fn projects(names: Vec<String>) -> Self {
        Self::One(Kind::Project, names.into_iter().map(Value::from).collect())
    }

    /// `None`: the rows without one.
    pub(super) fn project(name: Option<&str>) -> Self {
        let name = name.map_or(Value::Blob(Vec::new()), |name| name.to_owned().into());
        Self::One(Kind::Project, vec![name])
    }

    pub(super) fn model(name: String) -> Self {
        Self::One(Kind::Model, vec![name.into()])
    }

    pub(super) fn session(name: String) -> Self {
        Self::One(Kind::Session, vec![name.into()])
    }

    pub(super) fn connection(id: Uuid) -> Self {
        Self::One(Kind::Connection, vec![id.as_bytes().to_vec().into()])
    }

    fn kind(&self) -> Kind {
        match self {
            Self::One(kind, _) => *kind,
            Self::Run(_) => Kind::Run,
        }
    }

    /// That this is one of them.
    fn condition(&self, name: &str) -> (String, Vec<Value>) {
        match self {
            Self::One(_, names) => {
                let places = vec!["?"; names.len()].join(", ");
                (format!("{name} IN ({places})"), names.clone())
            }
            Self::Run(run) => {
                // Between the first two the index is read. What follows `/` among the characters is `0`.
                let bounds = [run.clone(), format!("{run}0"), run.clone(), format!("{run}/")];
                let sql = format!("{name} >= ? AND {name} < ? AND ({name} = ? OR {name} >= ?)");
                (sql, bounds.map(Value::from).into())
            }
        }
    }
}

/// Which rows are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Clause {
    from: Option<i64>,
    until: Option<i64>,
    /// By the first of these the minutes are found in which rows are looked at.
    names: Vec<Named>,
    sql: String,
    values: Vec<Value>,
}

impl Clause {
    /// Of this time.
    pub(super) fn within(window: Window) -> Self {
        let Window { from, to } = window;
        Self::default().between(Some(from.as_microsecond()), Some(to.as_microsecond()))
    }

    /// Microseconds; the second one is exclusive.
    pub(super) fn between(self, from: Option<i64>, until: Option<i64>) -> Self {
        Self { from, until, ..self }
    }

    pub(super) fn named(mut self, names: Option<Named>) -> Self {
        self.names.extend(names);
        self
    }

    pub(super) fn add(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    pub(super) fn add_with(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.add(condition);
        self.values.extend(values);
    }

    pub(super) fn add_opt(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add_with(condition, [value.into()]);
        }
    }

    /// The statement that selects them, whatever their order.
    pub(super) fn select(self, what: &str) -> (String, Vec<Value>) {
        match self.names.split_first() {
            None => self.filter(&format!("{what} FROM requests")),
            Some((first, others)) => self.by_minutes(what, first, others),
        }
    }

    /// The same in the order of time, for a limit that follows: no more rows are read than it takes, but for
    /// those of a run, of which all are sorted.
    ///
    /// Rows of several names are merged, each name's read from its place.
    pub(super) fn ordered(self, what: &str, latest_first: bool) -> (String, Vec<Value>) {
        /// SQLite merges 500 at most.
        const MERGED: usize = 100;
        let order = if latest_first { "DESC" } else { "ASC" };
        let plain = format!(" ORDER BY started_at {order}, id {order}");
        let (mut sql, values) = match self.names.split_first() {
            Some((Named::One(kind, names), others)) if (1..=MERGED).contains(&names.len()) => {
                let (mut parts, mut values) = (Vec::new(), Vec::new());
                for name in names {
                    let (sql, of_one) = self.by_name(what, *kind, name, others);
                    parts.push(sql);
                    values.extend(of_one);
                }
                let sql = parts.join(" UNION ALL ");
                return (
                    format!("{sql} ORDER BY minute {order}, started_at {order}, id {order}"),
                    values,
                );
            }
            // Most likely they are most of it.
            Some((Named::One(..), _)) | None => self.filter(&format!("{what} FROM requests")),
            Some((first @ Named::Run(_), others)) => self.by_minutes(what, first, others),
        };
        sql.push_str(&plain);
        (sql, values)
    }

    /// The statement of which the beginning says where they are looked for: one by one.
    pub(super) fn filter(&self, select_from: &str) -> (String, Vec<Value>) {
        let mut sql = format!("{select_from} WHERE true");
        let mut values = Vec::new();
        for (condition, value) in
            [(" AND started_at >= ?", self.from), (" AND started_at < ?", self.until)]
        {
            if let Some(value) = value {
                sql.push_str(condition);
                values.push(value.into());
            }
        }
        self.rest(sql, values, &self.names)
    }

    /// Each minute once, whichever of the names it has.
    fn by_minutes(&self, what: &str, first: &Named, others: &[Named]) -> (String, Vec<Value>) {
        let (entries, mut values) = first.condition("name");
        let [from, until] = self.bounds();
        values.extend([minute(from), minute(until - 1)].map(Value::from));
        values.extend([from, until].map(Value::from));
        let (rows, of_rows) = first.condition(first.kind().column());
        values.extend(of_rows);
        let sql = format!(
            "{what} FROM (SELECT DISTINCT minute FROM seen WHERE kind = {} AND {entries} \
             AND minute >= ? AND minute <= ?) CROSS JOIN requests WHERE {OF_MINUTE} AND {rows}",
            first.kind() as i64
        );
        self.rest(sql, values, others)
    }

    /// Minute after minute.
    fn by_name(
        &self,
        what: &str,
        kind: Kind,
        name: &Value,
        others: &[Named],
    ) -> (String, Vec<Value>) {
        let [from, until] = self.bounds();
        let sql = format!(
            "{what}, minute FROM seen CROSS JOIN requests WHERE kind = {} AND name = ? \
             AND minute >= ? AND minute <= ? AND {OF_MINUTE} AND {} = ?",
            kind as i64,
            kind.column()
        );
        let minutes = [minute(from), minute(until - 1)].map(Value::from);
        let mut values = vec![name.clone()];
        values.extend(minutes.into_iter().chain([from, until].map(Value::from)));
        values.push(name.clone());
        self.rest(sql, values, others)
    }

    fn bounds(&self) -> [i64; 2] {
        // No row is older: what is before has no minute either.
        [self.from.unwrap_or(i64::MIN), self.until.unwrap_or(i64::MAX)]
    }

    /// With what is the same wherever they are looked for.
    fn rest(&self, sql: String, values: Vec<Value>, names: &[Named]) -> (String, Vec<Value>) {
        let (mut sql, mut values) = (sql, values);
        for named in names {
            let (condition, of_it) = named.condition(named.kind().column());
            sql.push_str(&format!(" AND {condition}"));
            values.extend(of_it);
        }
        sql.push_str(&self.sql);
        values.extend(self.values.iter().cloned());
        (sql, values)
    }
}

/// From where to where the rows of a minute are read. Both bounds are one expression each, which SQLite
/// can look for in the index.
const OF_MINUTE: &str = "started_at >= max(minute * 60000000, ?) \
                         AND started_at < min((minute + 1) * 60000000, ?)";
const _: () = assert!(MINUTE == 60_000_000, "as in the text");
