//! Checks `TABLE` of `failure.rs` against every code of appendix A of the Postgres manual (version 15, and
//! the codes that 16 to 18 added).

use super::*;

/// Every class of SQLSTATEs: its title, all of its codes, and the expected judgement of those that
/// `EXCEPTIONS` does not contain.
const APPENDIX_A: &[(&str, &str, Judgement)] = &[
    ("successful completion", "00000", STATEMENT),
    ("warning", "01000 0100C 01008 01003 01007 01006 01004 01P01", STATEMENT),
    ("no data", "02000 02001", STATEMENT),
    ("SQL statement not yet complete", "03000", STATEMENT),
    ("connection exception", "08000 08003 08006 08001 08004 08007 08P01", UNKNOWN),
    ("triggered action exception", "09000", STATEMENT),
    ("feature not supported", "0A000", STATEMENT),
    ("invalid transaction initiation", "0B000", STATEMENT),
    ("locator exception", "0F000 0F001", STATEMENT),
    ("invalid grantor", "0L000 0LP01", STATEMENT),
    ("invalid role specification", "0P000", STATEMENT),
    ("diagnostics exception", "0Z000 0Z002", STATEMENT),
    ("XQuery error", "10608", STATEMENT),
    ("case not found", "20000", STATEMENT),
    ("cardinality violation", "21000", STATEMENT),
    (
        "data exception",
        "22000 2202E 22021 22008 22012 22005 2200B 22022 22015 2201E 22014 22016 2201F 2201G 22018 22007 22019 2200D \
         22025 22P06 22010 22023 22013 2201B 2201W 2201X 2202H 2202G 22009 2200C 2200G 22004 22002 22003 2200H 22026 \
         22001 22011 22027 22024 2200F 22P01 22P02 22P03 22P04 22P05 2200L 2200M 2200N 2200S 2200T 22030 22031 22032 \
         22033 22034 22035 22036 22037 22038 22039 2203A 2203B 2203C 2203D 2203E 2203F 2203G",
        STATEMENT,
    ),
    ("integrity constraint violation", "23000 23001 23502 23503 23505 23514 23P01", STATEMENT),
    ("invalid cursor state", "24000", STATEMENT),
    (
        "invalid transaction state",
        "25000 25001 25002 25008 25003 25004 25005 25006 25007 25P01 25P02 25P03 25P04",
        STATEMENT,
    ),
    ("invalid SQL statement name", "26000", SESSION_GONE),
    ("triggered data change violation", "27000", STATEMENT),
    ("invalid authorization specification", "28000 28P01", SESSION_GONE),
    ("dependent privilege descriptors still exist", "2B000 2BP01", STATEMENT),
    ("invalid transaction termination", "2D000", STATEMENT),
    ("SQL routine exception", "2F000 2F005 2F002 2F003 2F004", STATEMENT),
    ("invalid cursor name", "34000", STATEMENT),
    ("external routine exception", "38000 38001 38002 38003 38004", STATEMENT),
    ("external routine invocation exception", "39000 39001 39004 39P01 39P02 39P03", STATEMENT),
    ("savepoint exception", "3B000 3B001", STATEMENT),
    ("invalid catalog name", "3D000", SESSION_GONE),
    ("invalid schema name", "3F000", STATEMENT),
    ("transaction rollback", "40000 40002 40001 40003 40P01", CONFLICT),
    (
        "syntax error or access rule violation",
        "42000 42601 42501 42846 42803 42P20 42P19 42830 42602 42622 42939 42804 42P18 42P21 42P22 42809 428C9 42703 \
         42883 42P01 42P02 42704 42701 42P03 42P04 42723 42P05 42P06 42P07 42712 42710 42702 42725 42P08 42P09 42P10 \
         42611 42P11 42P12 42P13 42P14 42P15 42P16 42P17",
        STATEMENT,
    ),
    ("with check option violation", "44000", STATEMENT),
    ("insufficient resources", "53000 53100 53200 53300 53400", OUT_OF_RESOURCES),
    ("program limit exceeded", "54000 54001 54011 54023", STATEMENT),
    ("object not in prerequisite state", "55000 55006 55P02 55P03 55P04", STATEMENT),
    ("operator intervention", "57000 57014 57P01 57P02 57P03 57P04 57P05", SESSION_GONE),
    ("system error", "58000 58030 58P01 58P02 58P03", SESSION_GONE),
    ("snapshot failure", "72000", CONFLICT),
    ("configuration file error", "F0000 F0001", SESSION_GONE),
    (
        "foreign data wrapper error",
        "HV000 HV005 HV002 HV010 HV021 HV024 HV007 HV008 HV004 HV006 HV091 HV00B HV00C HV00D HV090 HV00A HV009 HV014 \
         HV001 HV00P HV00J HV00K HV00Q HV00R HV00L HV00M HV00N",
        STATEMENT,
    ),
    ("PL/pgSQL error", "P0000 P0001 P0002 P0003 P0004", STATEMENT),
    ("internal error", "XX000 XX001 XX002", BROKEN),
];

/// Codes whose judgement differs from that of their class.
const EXCEPTIONS: &[(&str, Judgement)] = &[
    ("08001", SESSION_GONE),
    ("08004", SESSION_GONE),
    ("25006", SESSION_GONE),
    ("25P03", SESSION_GONE),
    ("25P04", SESSION_GONE),
    ("40002", STATEMENT),
    ("40003", UNKNOWN),
    ("42P05", SESSION_GONE),
    ("53200", CONFLICT),
    ("53300", SESSION_GONE),
    ("53400", STATEMENT),
    ("55006", CONFLICT),
    ("55P03", CONFLICT),
    ("57014", CANCELLED),
    ("HV00N", SESSION_GONE),
];

fn codes() -> impl Iterator<Item = (&'static str, &'static str, Judgement)> {
    APPENDIX_A.iter().flat_map(|&(class, codes, expected)| {
        codes.split_whitespace().map(move |code| {
            let exception = EXCEPTIONS.iter().find(|(of, _)| *of == code);
            (class, code, exception.map_or(expected, |(_, judgement)| *judgement))
        })
    })
}

#[test]
fn every_code_of_appendix_a_is_judged() {
    for (class, code, expected) in codes() {
        assert_eq!(judge(code, false), expected, "{code} ({class})");
    }
    assert_eq!(codes().count(), 263);
}

#[test]
fn every_row_of_the_table_is_in_appendix_a_and_occurs_once() {
    for (at, (row, _)) in TABLE.iter().enumerate() {
        assert!(codes().any(|(_, code, _)| code.starts_with(row)), "{row} is no class or code of Postgres");
        assert!(TABLE[..at].iter().all(|(before, _)| before != row), "{row} is judged twice");
    }
    for (_, code, _) in codes() {
        assert!(TABLE.iter().any(|(row, _)| *row == &code[..2]), "the class of {code} is not in the table");
    }
}

#[test]
fn an_error_that_ends_the_session_is_never_the_callers_fault() {
    for (class, code, _) in codes() {
        let judgement = judge(code, true);
        assert_eq!(judgement.blame, Blame::Backend, "{code} ({class})");
        assert!(matches!(judgement.effect, Effect::Unavailable | Effect::Unknown), "{code} ({class})");
        assert!(!judgement.keeps_connection, "{code} ({class})");
    }
}

#[test]
fn an_unknown_code_is_an_error_of_the_statement() {
    for code in ["SB001", "ZZZZZ", "", "2", "ü"] {
        assert_eq!(judge(code, false), STATEMENT, "{code}");
    }
}

#[test]
fn the_effect_decides_which_error_the_caller_gets() {
    let error = |code: &str| SqlError { code: code.to_owned(), message: "why".to_owned(), constraint: None };
    let retryable = |code: &str| Error::Retryable(format!("{code}: why"));
    for (failure, uncommitted, makes_unusable) in [
        (Failure::Sql(error("23505")), Error::Sql(error("23505")), false),
        (Failure::Sql(error("XX000")), Error::Sql(error("XX000")), true),
        (Failure::Conflict(error("40001")), retryable("40001"), false),
        (Failure::Unavailable(error("53100")), retryable("53100"), false),
        (Failure::Unavailable(error("25006")), retryable("25006"), true),
        // A fatal error: no access to the database.
        (Failure::Unavailable(error("42501")), retryable("42501"), true),
        (Failure::Cancelled, Error::Deadline, false),
    ] {
        assert_eq!(failure.makes_connection_unusable(), makes_unusable, "{failure:?}");
        assert!(failure.ends_the_answer(), "{failure:?}");
        assert_eq!(failure.clone().committing(), uncommitted);
        assert_eq!(failure.uncommitted(), uncommitted);
    }
    assert_eq!(Failure::Lost.committing(), Error::UnknownOutcome);
    assert!(Failure::Lost.makes_connection_unusable() && !Failure::Lost.ends_the_answer());
    assert!(Failure::read_only().is_read_only());
}
