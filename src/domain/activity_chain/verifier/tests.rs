//! Chains with every kind of tampering, and what the check finds.

use super::*;
use crate::domain::activity_chain::ChainLink;

const ACME: Uuid = Uuid::from_u128(7);
const OTHER: Uuid = Uuid::from_u128(8);

/// A chain as the trigger writes it.
fn chain(tenant: Uuid, rows: i64) -> Vec<LoggedActivity> {
    let (mut written, mut previous) = (Vec::new(), GENESIS.to_vec());
    for position in 1..=rows {
        let mut row = LoggedActivity {
            id: position * 10 + tenant.as_u128() as i64,
            tenant: (tenant != WITHOUT_TENANT).then_some(tenant),
            at: String::new(),
            at_micros: Some(1_800_000_000_000_000 + position),
            action: "Noted".to_owned(),
            actor: "ada".to_owned(),
            reason: None,
            details: "{}".to_owned(),
            correlation: None,
            archived: false,
            link: None,
        };
        let hash = row.hash(position, &previous).unwrap().to_vec();
        row.link = Some(ChainLink { position, previous, hash: hash.clone() });
        previous = hash;
        written.push(row);
    }
    written
}

fn link(row: &mut LoggedActivity) -> &mut ChainLink {
    row.link.as_mut().unwrap()
}

/// Gives a row the hash of its content, as one who knows the encoding would.
fn rehash(row: &mut LoggedActivity) {
    let ChainLink { position, previous, .. } = row.link.clone().unwrap();
    link(row).hash = row.hash(position, &previous).unwrap().to_vec();
}

fn head(rows: &[LoggedActivity]) -> ChainHead {
    let last = rows.last().unwrap();
    let ChainLink { position, hash, .. } = last.link.clone().unwrap();
    ChainHead {
        chain: last.chain(),
        slug: (last.chain() == ACME).then(|| "acme".to_owned()),
        position,
        hash,
        removed_position: 0,
        removed_hash: GENESIS.to_vec(),
        pending: false,
        is_closed: false,
    }
}

fn checked(
    heads: Vec<ChainHead>,
    stored: Vec<StoredHead>,
    rows: &[LoggedActivity],
) -> (Vec<Difference>, ChainSummary) {
    let mut verifier = ChainVerifier::new(heads, &[], stored);
    let mut found = Vec::new();
    for row in rows {
        verifier.check(row);
        found.extend(verifier.take_findings());
    }
    let (rest, summary) = verifier.finish();
    found.extend(rest);
    assert_eq!(summary.differences, found.len() as u64);
    (found.into_iter().map(|finding| finding.what).collect(), summary)
}

#[test]
fn whole_chains_have_no_difference() {
    let (acme, other) = (chain(ACME, 5), chain(OTHER, 1));
    let rows = [chain(WITHOUT_TENANT, 3), acme.clone(), other].concat();
    let heads = [&rows[..3], &acme[..], &rows[8..]].map(head).to_vec();
    let stored = vec![head(&acme[..2]).stored(), head(&acme).stored(), head(&rows[..1]).stored()];
    let (found, summary) = checked(heads, stored, &rows);
    assert_eq!(
        (found, summary),
        (vec![], ChainSummary { rows: 9, chains: 3, stored: 3, removed: 0, differences: 0 })
    );
    assert_eq!(checked(vec![], vec![], &[]), (vec![], ChainSummary::default()));
}

#[test]
fn each_kind_of_tampering_is_found() {
    type Tamper = fn(&mut Vec<LoggedActivity>);
    let table: [(&str, Tamper, &[Difference]); 14] = [
        ("content", |rows| rows[2].actor = "bob".to_owned(), &[Difference::Changed { id: 37, position: 3 }]),
        (
            "content and hash",
            |rows| {
                rows[2].actor = "bob".to_owned();
                rehash(&mut rows[2]);
            },
            &[Difference::NotAfter { id: 47, position: 4 }],
        ),
        (
            "content and hash of the last row",
            |rows| {
                rows[4].reason = Some("x".to_owned());
                rehash(&mut rows[4]);
            },
            &[Difference::NotTheHead { position: 5 }],
        ),
        ("time", |rows| rows[0].at_micros = None, &[Difference::Changed { id: 17, position: 1 }]),
        ("id", |rows| rows[0].id = 1, &[Difference::Changed { id: 1, position: 1 }]),
        (
            "previous",
            |rows| link(&mut rows[2]).previous = vec![1; 32],
            &[Difference::NotAfter { id: 37, position: 3 }, Difference::Changed { id: 37, position: 3 }],
        ),
        ("one row removed", |rows| drop(rows.remove(2)), &[Difference::Missing { from: 3, to: 3 }]),
        ("first rows removed", |rows| drop(rows.drain(..2)), &[Difference::Missing { from: 1, to: 2 }]),
        ("end removed", |rows| rows.truncate(3), &[Difference::CutOff { from: 4, to: 5 }]),
        ("all removed", |rows| rows.clear(), &[Difference::CutOff { from: 1, to: 5 }]),
        (
            "row copied",
            |rows| {
                let copy = LoggedActivity { id: 99, ..rows[2].clone() };
                rows.insert(3, copy);
            },
            &[Difference::Inserted { id: 99, position: 3 }],
        ),
        (
            "row appended",
            |rows| {
                let mut row = LoggedActivity { id: 99, ..rows[4].clone() };
                let previous = link(&mut row).hash.clone();
                row.link = Some(ChainLink { position: 6, previous, hash: vec![] });
                rehash(&mut row);
                rows.push(row);
            },
            &[Difference::AfterHead { id: 99, position: 6 }],
        ),
        (
            "rows exchanged",
            |rows| {
                let (second, third) = (rows[1].link.clone(), rows[2].link.clone());
                (rows[1].link, rows[2].link) = (third, second);
                rows.swap(1, 2);
            },
            &[Difference::Changed { id: 37, position: 2 }, Difference::Changed { id: 27, position: 3 }],
        ),
        (
            "two places",
            |rows| {
                rows[0].details = "[]".to_owned();
                rows.remove(3);
            },
            &[Difference::Changed { id: 17, position: 1 }, Difference::Missing { from: 4, to: 4 }],
        ),
    ];
    for (name, tamper, expected) in table {
        let mut rows = chain(ACME, 5);
        let heads = vec![head(&rows)];
        tamper(&mut rows);
        assert_eq!(checked(heads, vec![], &rows).0, expected, "{name}");
    }
}

#[test]
fn row_that_was_moved_to_another_tenant_is_missing_and_changed() {
    let (mut acme, mut other) = (chain(ACME, 3), chain(OTHER, 2));
    let heads = vec![head(&acme), head(&other)];
    let mut moved = acme.remove(2);
    moved.tenant = Some(OTHER);
    other.push(moved);
    let (found, _) = checked(heads, vec![], &[acme, other].concat());
    let expected = [
        Difference::CutOff { from: 3, to: 3 },
        Difference::NotAfter { id: 37, position: 3 },
        Difference::Changed { id: 37, position: 3 },
        Difference::AfterHead { id: 37, position: 3 },
    ];
    assert_eq!(found, expected);
}

#[test]
fn rewritten_chain_differs_from_stored_heads_alone() {
    let (before, mut after) = (chain(ACME, 4), chain(ACME, 6));
    let stored = vec![head(&before).stored()];
    after[1].actor = "bob".to_owned();
    let mut previous = GENESIS.to_vec();
    for row in &mut after {
        link(row).previous = previous;
        rehash(row);
        previous = link(row).hash.clone();
    }
    let heads = vec![head(&after)];
    assert_eq!(checked(heads.clone(), vec![], &after).0, []);
    assert_eq!(checked(heads, stored.clone(), &after).0, [Difference::Rewritten { position: 4 }]);
    // A shorter one, and none.
    let short = &after[..3];
    let gone = |last| [Difference::StoredIsGone { stored: 4, last }];
    assert_eq!(checked(vec![head(short)], stored.clone(), short).0, gone(3));
    assert_eq!(checked(vec![], stored, &[]).0, gone(0));
}

#[test]
fn emptied_archive_leaves_what_follows_the_last_removed_row() {
    let rows = chain(ACME, 6);
    let removed = |position: usize| ChainHead {
        removed_position: position as i64,
        removed_hash: rows[position - 1].link.clone().unwrap().hash,
        ..head(&rows)
    };
    let stored = |position: usize| vec![head(&rows[..position]).stored()];
    assert_eq!(checked(vec![removed(2)], stored(2), &rows[2..]).0, []);
    let closed = ChainHead { is_closed: true, ..removed(6) };
    assert_eq!(checked(vec![closed], stored(6), &[]).0, []);
    // Of a tenant that exists, the last row stays: a stored head that is that row proves nothing without it.
    let emptied = Difference::Emptied { position: 6 };
    assert_eq!(checked(vec![removed(6)], stored(6), &[]).0, [emptied]);
    assert_eq!(checked(vec![removed(2)], stored(5), &rows[2..]).0, []);
    let too_old = Difference::StoredIsTooOld { stored: 1, removed: 2 };
    assert_eq!(checked(vec![removed(2)], stored(1), &rows[2..]).0, [too_old]);
    // More was removed than the head knows of.
    assert_eq!(checked(vec![removed(2)], vec![], &rows[3..]).0, [Difference::Missing { from: 3, to: 3 }]);
    // The head was changed, to hide that.
    let wrong = ChainHead { removed_position: 3, ..removed(2) };
    assert_eq!(checked(vec![wrong], vec![], &rows[3..]).0, [Difference::NotAfter { id: 47, position: 4 }]);
}

#[test]
fn chain_without_head_and_rows_without_position_are_found() {
    let rows = chain(ACME, 2);
    assert_eq!(checked(vec![], vec![], &rows).0, [Difference::NoHead]);

    let pending = ChainHead { pending: true, ..head(&rows) };
    let verifier = ChainVerifier::new(vec![pending], &[(ACME, 3), (OTHER, 1)], vec![]);
    let found: Vec<String> = verifier.findings.iter().map(ToString::to_string).collect();
    assert!(
        found[0].starts_with("tenant acme (00000000-0000-0000-0000-000000000007): rows from before"),
        "{found:?}"
    );
    assert!(found[1].contains("rows without a position: 1, inserted"), "{found:?}");
}
