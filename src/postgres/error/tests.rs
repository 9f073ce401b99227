//! The reasons of SQLSTATEs.

use super::*;

#[test]
fn every_sqlstate_has_its_reason() {
    for (code, reason) in [
        ("28P01", Reason::AuthenticationFailed),
        ("28000", Reason::AuthenticationFailed),
        ("42501", Reason::MissingRight),
        ("53300", Reason::TooManyConnections),
        ("53100", Reason::DiskFull),
        ("53200", Reason::OutOfMemory),
        ("25006", Reason::ReadOnlyServer),
        ("57P03", Reason::StartingUp),
        ("57P01", Reason::SessionEnded),
        ("57P02", Reason::SessionEnded),
        ("57014", Reason::StatementCancelled),
        ("3D000", Reason::DatabaseMissing),
        ("55006", Reason::SessionsInTheWay),
        ("55P03", Reason::LockTimeout),
        ("08006", Reason::DatabaseUnreachable),
        ("40001", Reason::ConcurrentChange),
        ("42601", Reason::SqlFailed),
    ] {
        assert_eq!(reason_of(code, "a message"), reason, "{code}");
    }
    assert_eq!(reason_of("22023", "role \"tenantry_admin\" does not exist"), Reason::MissingRight);
    assert_eq!(reason_of("22023", "invalid value"), Reason::SqlFailed);
    let text = "encoding \"UTF8\" does not match locale \"de_DE.ISO-8859-1\"";
    assert_eq!(reason_of("22023", text), Reason::EncodingMismatch);
    let text = "template database \"template1\" has a collation version mismatch";
    assert_eq!(reason_of("XX000", text), Reason::CollationMismatch);
    assert_eq!(reason_of("XX000", "cache lookup failed"), Reason::SqlFailed);
}
