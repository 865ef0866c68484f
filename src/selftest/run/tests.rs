use super::*;
use crate::meter::ledger::fixture;

fn served(n: u64) -> Served {
    let tokens = Tokens {
        input: Some(1000 + n),
        cache_read: Some(2000),
        output: Some(500),
        ..Tokens::default()
    };
    Served { tokens, body: Vec::new(), in_time: true }
}

fn row(n: u64) -> Row {
    let row = fixture::row(u128::from(n), "2026-11-24T01:00:00Z");
    let tokens = served(n).tokens;
    Row {
        tokens,
        cost_nanousd: price(tokens, row.started_at),
        completeness: Completeness::Complete,
        ..row
    }
}

#[test]
fn rows_must_be_exactly_what_was_sent() {
    let sent = [served(0), served(1)];
    assert_eq!(price(sent[0].tokens, Timestamp::now()), Some(3_000_000 + 600_000 + 7_500_000));
    assert_eq!(compare(&sent, &[row(1), row(0)]), Ok(()));
    let spoiled: [fn(&mut Row); 5] = [
        |r| r.tokens.input = Some(7),
        |r| r.tokens.output = Some(7),
        |r| r.cost_nanousd = None,
        |r| r.cost_nanousd = r.cost_nanousd.map(|c| c + 1),
        |r| r.completeness = Completeness::Open,
    ];
    for spoil in spoiled {
        let mut rows = [row(0), row(1)];
        spoil(&mut rows[1]);
        compare(&sent, &rows).unwrap_err();
    }
    compare(&sent, &[row(0)]).unwrap_err();
    compare(&sent, &[row(0), row(1), row(2)]).unwrap_err();
}
