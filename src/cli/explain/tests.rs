use super::*;

fn all_errors() -> Vec<(Error, u8)> {
    let store = |kind| {
        let reason = "the reason".to_owned();
        Error::Store(StoreError { kind, action: "read", object: "packs/00/11".to_owned(), reason })
    };
    let denied = io::Error::from_raw_os_error(13);
    vec![
        (Error::Usage("a sentence".to_owned()), 2),
        (Error::NoRepository { location: "/srv/r".to_owned() }, 10),
        (Error::RepositoryExists { location: "/srv/r".to_owned() }, 1),
        (Error::WrongPassword, 12),
        (Error::TooNew { object: "config".to_owned(), needs: "format 9".to_owned() }, 1),
        (Error::damaged("config", "it is short"), 1),
        (Error::NotFound { what: "snapshot abcd".to_owned() }, 1),
        (store(StoreErrorKind::Denied), 1),
        (store(StoreErrorKind::Full), 1),
        (store(StoreErrorKind::NoCredentials), 1),
        (store(StoreErrorKind::ReadOnly), 1),
        (store(StoreErrorKind::NoBucket), 1),
        (store(StoreErrorKind::Elsewhere), 1),
        (store(StoreErrorKind::ClockSkew), 1),
        (store(StoreErrorKind::Untrusted), 1),
        (store(StoreErrorKind::Unreliable), 1),
        (store(StoreErrorKind::UnknownHost), 1),
        (store(StoreErrorKind::Unreachable), 1),
        (store(StoreErrorKind::Unreadable), 1),
        (store(StoreErrorKind::Vanished), 1),
        (store(StoreErrorKind::Linked), 1),
        (Error::Io { action: "read", path: "/x".into(), source: denied }, 1),
        (Error::Index("it is broken".to_owned()), 1),
        (Error::IndexLost { packs: 1 }, 1),
        (Error::Command { command: "pg_dump".to_owned(), outcome: "exited with status 1".to_owned() }, 1),
        (Error::Interrupted, 130),
        (Error::Internal("impossible".to_owned()), 1),
    ]
}

#[test]
fn every_error_is_one_sentence_with_its_code() {
    for (error, code) in all_errors() {
        let explanation = explain(&error, Some("/srv/r"));
        assert_eq!(explanation.code, code, "{error}");
        let text = format!("{} {}", explanation.what, explanation.advice.unwrap_or_default());
        for debug in ["Error", "{", "Some(", "os error"] {
            assert!(!text.contains(debug), "{text}");
        }
        assert!(!explanation.what.ends_with('.') && !explanation.what.contains('\n'), "{text}");
    }
}

#[test]
fn a_missing_repository_says_what_to_do() {
    let error = Error::NoRepository { location: "/srv/r".to_owned() };
    let explanation = explain(&error, Some("/srv/r"));
    assert_eq!(explanation.what, "there is no repository at /srv/r");
    let advice = explanation.advice.unwrap();
    assert!(advice.contains("backstay init") && advice.contains("BACKSTAY_REPOSITORY"));
}

#[test]
fn a_newer_format_is_never_called_damage() {
    let error = Error::TooNew { object: "config".to_owned(), needs: "format 9".to_owned() };
    let explanation = explain(&error, None);
    assert!(!explanation.what.contains("damage") && explanation.advice.unwrap().contains("upgrade"));
}

#[test]
fn a_source_that_is_not_there_is_no_snapshot() {
    let error = Error::NotFound { what: "/x".to_owned() };
    assert!(explain_source(&error, None).advice.unwrap().contains("Check the path"));
    assert_eq!(explain_source(&Error::Usage("the stream is empty".to_owned()), None).code, 1);
    assert_eq!(explain_source(&Error::Interrupted, None).code, 130);
}

#[test]
fn the_system_speaks_without_numbers() {
    assert_eq!(plain(&io::Error::from_raw_os_error(13)), "permission denied");
    assert_eq!(plain(&io::Error::other("Own Text")), "Own Text");
}

#[test]
fn a_restore_that_ended_early_says_that_the_target_is_incomplete() {
    let full = Error::Io { action: "write", path: "/x".into(), source: io::Error::from_raw_os_error(28) };
    for error in [Error::Interrupted, full] {
        let advice = explain_target(&error, None).advice.unwrap();
        assert!(advice.contains("incomplete") && advice.contains("goes on"), "{advice}");
        assert!(!advice.contains("half done"), "{advice}");
    }
    let missing = Error::NotFound { what: "/x".to_owned() };
    assert_eq!(explain_target(&missing, None), explain(&missing, None));
}

#[test]
fn without_a_config_nothing_can_be_opened() {
    let advice = explain(&Error::damaged("config", "it is missing"), None).advice.unwrap();
    assert!(advice.starts_with("Put `config` back"), "{advice}");
}

#[test]
fn a_store_that_is_there_is_not_to_be_replaced_by_another() {
    let advice = |kind| {
        let (object, reason) = ("packs/00/11".to_owned(), "the reason".to_owned());
        let error = Error::Store(StoreError { kind, action: "read", object, reason });
        explain(&error, None).advice.unwrap_or_default()
    };
    use StoreErrorKind as K;
    assert!(advice(K::Unusable).starts_with("Name an empty or new folder"));
    for kind in [K::Vanished, K::Linked, K::Unreachable, K::UnknownHost, K::Unreadable, K::Other] {
        assert!(!advice(kind).contains("new folder"), "{kind:?}");
    }
    assert!(advice(K::Vanished).starts_with("Mount it again"));
    assert!(advice(K::Untrusted).contains("ca-file") && !advice(K::UnknownHost).contains("ca-file"));
    assert!(advice(K::UnknownHost).contains("by `ssh` once"));
}
