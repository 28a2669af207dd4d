//! The migrations of a database: those of the host, which are in the binary, and those of the application,
//! which are files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

use super::Error;
use switchboard_core::ids::Digest;

/// Versions 1000 to 1999 are the host's, of `migrations/host`.
const OF_THE_HOST: &[(i64, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// The application's versions begin here. Its migrations may use what those of the host give.
const APP_VERSION_MIN: i64 = 2000;

/// All migrations of one database, in the order of their versions. One history, so that a database ahead of
/// this build, or of these files, is noticed.
#[derive(Clone, Debug)]
pub struct Migrations(Vec<Script>);

#[derive(Clone, Debug)]
struct Script {
    version: i64,
    description: Cow<'static, str>,
    /// The bytes of the file. Postgres keeps their checksum, so they never change once a database has had
    /// them.
    sql: Cow<'static, str>,
}

/// Why the migrations of an application cannot be used. Nothing was changed in the database.
#[derive(Debug, thiserror::Error)]
pub enum UnusableMigrations {
    #[error(
        "cannot read the application's migrations in {directory}: {1}; name their directory with `--app DIRECTORY`",
        directory = .0.display()
    )]
    Directory(PathBuf, io::Error),
    #[error("cannot read the migration {path}: {1}", path = .0.display())]
    File(PathBuf, io::Error),
    /// The name is not a version, `_` and a description.
    #[error("the migration {path} has no version in its name: name it like 2010_people.sql", path = .0.display())]
    Name(PathBuf),
    /// The version is one of the host's, or two files have it.
    #[error(
        "the migration {path} has version {1}: an application's versions begin at {APP_VERSION_MIN}, and each file has \
         its own",
        path = .0.display()
    )]
    Version(PathBuf, i64),
}

impl Migrations {
    /// The host's own, for a database without an application.
    pub fn of_the_host() -> Self {
        let script = |&(version, description, sql): &(i64, &'static str, &'static str)| Script {
            version,
            description: description.into(),
            sql: sql.into(),
        };
        Self(OF_THE_HOST.iter().map(script).collect())
    }

    /// The host's own, then the files of this directory, whose names are a version, `_`, a description and
    /// `.sql`. An empty directory is an application without migrations.
    ///
    /// # Errors
    /// When the directory or a file cannot be read, or a file has no version of its own from 2000 on.
    pub fn with_app(directory: &Path) -> Result<Self, Error> {
        let unreadable = |error| UnusableMigrations::Directory(directory.to_owned(), error);
        let mut all = Self::of_the_host();
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "sql") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            let (version, description) =
                named(&path).ok_or_else(|| UnusableMigrations::Name(path.clone()))?;
            if version < APP_VERSION_MIN || all.0.iter().any(|script| script.version == version) {
                return Err(UnusableMigrations::Version(path, version).into());
            }
            let sql = fs::read_to_string(&path).map_err(|error| UnusableMigrations::File(path, error))?;
            all.0.push(Script { version, description: description.into(), sql: sql.into() });
        }
        all.0.sort_by_key(|script| script.version);
        Ok(all)
    }

    /// The text of each, in their order.
    pub fn sql(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|script| &*script.sql)
    }

    /// Changes with any migration: the name of a database that was migrated to this version.
    pub fn fingerprint(&self) -> String {
        let all: String = self.sql().collect();
        Digest::of(all.as_bytes()).short()
    }

    /// The names in `ensure_role('…')`.
    pub(crate) fn roles(&self) -> Vec<String> {
        let calls = self.sql().flat_map(|sql| sql.split("ensure_role('").skip(1));
        calls.filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned())).collect()
    }

    /// As sqlx runs them, each statement rewritten first.
    pub(crate) fn migrator(&self, rewrite: impl Fn(&str) -> String) -> Migrator {
        let migrations = self.0.iter().map(|script| {
            let sql = AssertSqlSafe(rewrite(&script.sql)).into_sql_str();
            Migration::new(script.version, script.description.clone(), MigrationType::Simple, sql, false)
        });
        Migrator::with_migrations(migrations.collect())
    }
}

/// `2010_people.sql` is version 2010, `people`.
fn named(path: &Path) -> Option<(i64, String)> {
    let (version, description) = path.file_stem()?.to_str()?.split_once('_')?;
    Some((version.parse().ok()?, description.replace('_', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrator() -> Migrator {
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/app");
        Migrations::with_app(&app).expect("the migrations of the chat product").migrator(str::to_owned)
    }

    /// Databases in use have these versions with these checksums, and refuse a migration that was edited.
    #[test]
    fn migrations_that_databases_have_had_never_change() {
        let all = migrator();
        for line in HAD.lines() {
            let (version, checksum) = line.trim().split_once(' ').expect("a version and a checksum");
            let version: i64 = version.parse().expect("a version");
            let found = all.iter().find(|migration| migration.version == version);
            let found = found.unwrap_or_else(|| panic!("migration {version} is gone"));
            let now: String = found.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(now.starts_with(checksum), "migration {version} was edited: {now}");
        }
    }

    #[test]
    fn the_hosts_migrations_come_first() {
        let versions: Vec<i64> = migrator().iter().map(|migration| migration.version).collect();
        assert!(versions.is_sorted() && versions[0] == 1000, "{versions:?}");
        assert!(versions.contains(&2000));
    }

    #[test]
    fn an_unusable_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let outcome = || Migrations::with_app(directory.path()).map(drop).map_err(|error| error.to_string());
        assert_eq!(outcome(), Ok(()));
        for (name, complaint) in [
            ("people.sql", "people.sql has no version in its name"),
            ("1500_people.sql", "1500_people.sql has version 1500"),
            ("1000_people.sql", "begin at 2000"),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, "select 1").unwrap();
            let error = outcome().unwrap_err();
            assert!(error.contains(complaint), "{error}");
            fs::remove_file(path).unwrap();
        }
        let error = Migrations::with_app(&directory.path().join("nowhere")).unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("`--app DIRECTORY`"), "{error}");
    }

    const HAD: &str = "1000 d896a9bc0558aee2
        1010 06c664c16ba5b2d6
        1020 04aa715e7a8d3956
        1030 2d9ce03779aaaab1
        1100 1568a9cf8dbf3bde
        1200 9b670a747f340bf6
        1210 c65473b5b0343d16
        1220 2a9d76a19a91c9aa
        1300 926eb7336c3a95a5
        1301 0c0e0742f28df427
        1302 b68ab189f573acf6
        1310 570f44db3a378bd5
        1311 eca0ddfb61e1a62b
        1320 b923101df0095775
        1321 6476643c21763209
        1330 6f397d61056273de
        1350 9bb79184a4609d16
        1351 36f054fade11c87d
        2000 03542dd56fd9f9fd
        2010 6b5ce22811ce16dd
        2020 93df5c9d086eb7c5
        2030 3f3a573f49b7c35f
        2040 02b8bb0bc3e29630
        2050 8b340ec35c1b3384
        2900 2080a2f6fc8d17da
        2910 a4b2c26343f9bf73
        2920 12e0f66e8167782c
        2930 6509dfa237f3e346
        2931 121e9ec412114402
        2932 919b9fb740058915
        2933 921365a2ed0cdfd2
        2940 e545caa80333a58d
        2941 9295ac781f2b0b93
        2942 ddf91a5a345d5b47
        2950 2ff03ae54a3fc067
        2955 e4f6b6c20adc0e35
        2960 cc1c1d5d30212d04
        2961 8695da9366584c5d
        2970 fb0b5080bef231e6
        2971 6c996fbb4c085453
        2980 c825738b9410534d
        2981 441510783b46f9c9
        2985 f281025812c44201
        2986 004b75db488399b8
        2987 9be5a4b0503ef3aa
        2990 30a2c8c0488dfe6a";
}
