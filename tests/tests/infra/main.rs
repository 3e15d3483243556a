//! The templates in `infra/`: the linters accept them, and what SAM makes of them grants, keeps and
//! schedules exactly what is listed here. Every rule is shown to fail on a template that breaks it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod expected;
mod rules;
mod template;

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use expected::{FUNCTIONS, GRANTS, SKIPPED};
use rules::{problems, problems_of_mirror};
use template::{MAIN, MIRROR, check, each, grants, infra, text};

#[test]
fn the_templates_grant_keep_and_schedule_exactly_what_is_listed() {
    assert_eq!(problems(&MAIN), [""; 0]);
    assert_eq!(problems_of_mirror(&MIRROR), [""; 0]);
}

/// A function does not start with a variable that nothing reads.
#[test]
fn every_variable_that_is_set_is_one_that_stele_knows() {
    let config = infra().join("../core/runtime/src/config.rs");
    let config = std::fs::read_to_string(config).unwrap();
    for name in FUNCTIONS {
        let function = &MAIN["Resources"][format!("{name}Function")]["Properties"];
        let set = function["Environment"]["Variables"].as_object().unwrap();
        for variable in set.keys().filter(|name| name.starts_with("STELE_")) {
            assert!(
                config.contains(&format!("name: \"{variable}\"")),
                "{variable}"
            );
        }
        assert!(set.len() > 6, "{name}: {set:?}");
    }
}

#[test]
fn only_protect_may_delete_and_nobody_may_delete_versions() {
    for (role, _) in GRANTS {
        let may = grants(&MAIN, role);
        let deletes = may.iter().any(|one| one.contains("Delete"));
        assert_eq!(deletes, role == "ProtectRole", "{role}");
        let too_much = |one: &String| one.contains("Version") || one.contains(":*");
        assert!(!may.iter().any(too_much), "{may:?}");
    }
}

/// A change to the template that SAM makes, and a part of what must be said of it.
#[test]
fn every_rule_fails_on_a_template_that_breaks_it() {
    let statements =
        |role: &str| format!("/Resources/{role}/Properties/Policies/0/PolicyDocument/Statement");
    let policy = "/Resources/DataBucketPolicy/Properties/PolicyDocument/Statement";
    let bucket = "/Resources/DataBucket";
    let breaks: &[(&str, String, Value, &str)] = &[
        (
            "compact deletes",
            format!("{}/2/Action", statements("CompactRole")),
            json!(["s3:PutObject", "s3:DeleteObject"]),
            "CompactRole may s3:DeleteObject data/tenants/*/table/*",
        ),
        (
            "ingest writes the table",
            format!("{}/2/Resource", statements("IngestRole")),
            json!({"Fn::Sub": "arn:${AWS::Partition}:s3:::${BucketName}/${Prefix}/*"}),
            "IngestRole may s3:PutObject data/*",
        ),
        (
            "everything but one thing",
            format!("{}/2", statements("QueryRole")),
            json!({"Effect": "Allow", "NotAction": "s3:GetObject", "Resource": "*"}),
            "QueryRole may {\"Effect\"",
        ),
        (
            "sweep has nothing left to do",
            format!("{}/3/Action", statements("ProtectRole")),
            json!("s3:GetObject"),
            "ProtectRole may not s3:DeleteObject data/tenants/*/l0/*",
        ),
        (
            "a managed policy",
            "/Resources/QueryRole/Properties/ManagedPolicyArns".to_owned(),
            json!(["arn:aws:iam::aws:policy/AdministratorAccess"]),
            "QueryRole: [",
        ),
        (
            "another role",
            "/Resources/QueryFunction/Properties/Role".to_owned(),
            json!({"Fn::GetAtt": ["ProtectRole", "Arn"]}),
            "Query runs as",
        ),
        (
            "no condition",
            format!("{policy}/1/Condition"),
            json!({}),
            "\"CreateOnly\" is not as it should be",
        ),
        (
            "anybody deletes",
            format!("{policy}/3/Effect"),
            json!("Allow"),
            "\"OnlySweepDeletes\" is not",
        ),
        (
            "no versions",
            format!("{bucket}/Properties/VersioningConfiguration/Status"),
            json!("Suspended"),
            "DataBucket: versioning",
        ),
        (
            "no encryption",
            format!("{bucket}/Properties/BucketEncryption"),
            json!({}),
            "DataBucket: encryption",
        ),
        (
            "public",
            format!("{bucket}/Properties/PublicAccessBlockConfiguration/BlockPublicPolicy"),
            json!(false),
            "DataBucket: public access",
        ),
        (
            "old versions for ever",
            format!("{bucket}/Properties/LifecycleConfiguration/Rules/0/Status"),
            json!("Disabled"),
            "DataBucket: lifecycle",
        ),
        (
            "data goes with the stack",
            format!("{bucket}/DeletionPolicy"),
            json!("Delete"),
            "DataBucket: DeletionPolicy",
        ),
        (
            "a rare sweep",
            "/Resources/ProtectFunctionSweep/Properties/ScheduleExpression".to_owned(),
            json!("rate(5 days)"),
            "schedules:",
        ),
        (
            "no dead letters",
            "/Resources/CompactFunction/Properties/DeadLetterConfig".to_owned(),
            Value::Null,
            "Compact: DeadLetterConfig",
        ),
        (
            "no reserve",
            "/Resources/IngestFunction/Properties/ReservedConcurrentExecutions".to_owned(),
            Value::Null,
            "Ingest: ReservedConcurrentExecutions",
        ),
        (
            "a budget beyond the memory",
            "/Mappings/Size/small/QueryMemory".to_owned(),
            json!(512),
            "small: QueryBudget is not half of 512 MiB",
        ),
        (
            "longer ticks",
            "/Resources/CompactFunction/Properties/Timeout".to_owned(),
            json!(900),
            "small: not 15 ticks with their fan-out",
        ),
        (
            "silence is fine",
            "/Resources/LagAlarm/Properties/TreatMissingData".to_owned(),
            json!("notBreaching"),
            "LagAlarm in silence",
        ),
    ];
    for (name, pointer, value, expected) in breaks {
        let mut broken = MAIN.clone();
        put(&mut broken, pointer, value.clone());
        let found = problems(&broken);
        assert!(
            found.iter().any(|one| one.contains(expected)),
            "{name}: {found:?}"
        );
    }
}

/// Sets what `pointer` names; the last part may be new.
fn put(template: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match template.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.insert(last.to_owned(), value)),
        Some(Value::Array(list)) => match last.parse::<usize>().unwrap() {
            at if at < list.len() => list[at] = value,
            _ => list.push(value),
        },
        other => panic!("{parent} is {other:?}"),
    }
}

#[test]
fn every_skip_of_a_check_is_explained_and_listed() {
    let mut ids = BTreeSet::new();
    for template in [&*MAIN, &*MIRROR] {
        for (name, resource) in template["Resources"].as_object().unwrap() {
            for skip in each(&resource["Metadata"]["checkov"]["skip"]) {
                assert!(text(&skip["comment"]).len() > 40, "{name}: {skip}");
                ids.insert(text(&skip["id"]));
            }
            assert!(resource["Metadata"]["cfn-lint"].is_null(), "{name}");
        }
    }
    assert_eq!(ids.iter().collect::<Vec<_>>(), SKIPPED);
}

#[test]
fn cfn_lint_sam_and_checkov_accept_the_templates() {
    let done = check(&[], &[]);
    let said = String::from_utf8_lossy(&done.stdout);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{error}");
    assert!(said.ends_with("accepted\n"), "{said}");
}

#[test]
fn each_linter_refuses_a_broken_template() {
    let dir = tempfile::tempdir().unwrap();
    let breaks = [
        (
            "cfn-lint",
            "mirror.yaml",
            "BlockPublicAcls: true",
            "BlockPublicAcl: true",
        ),
        (
            "sam",
            "template.yaml",
            "    Handler: bootstrap",
            "    Handlers: bootstrap",
        ),
        (
            "checkov",
            "mirror.yaml",
            "        Status: Enabled\n      Bucket",
            "        Status: Suspended\n      Bucket",
        ),
    ];
    for (tool, name, right, wrong) in breaks {
        let whole = std::fs::read_to_string(infra().join(name)).unwrap();
        assert!(whole.contains(right), "{name} has no {right}");
        let path = dir.path().join(format!("{tool}.yaml"));
        std::fs::write(&path, whole.replace(right, wrong)).unwrap();
        let done = check(&["--only", tool], &[&path]);
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(done.status.code(), Some(1), "{tool}: {said}");
        assert!(said.ends_with(&format!("refused by {tool}\n")), "{said}");
    }
}

#[test]
fn the_costs_in_the_readme_are_those_of_the_counts_and_prices() {
    let done = Command::new(infra().join("cost")).output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let readme = std::fs::read_to_string(infra().join("README.md")).unwrap();
    let table = String::from_utf8(done.stdout).unwrap();
    assert!(table.lines().count() > 20, "{table}");
    assert!(
        readme.contains(table.trim()),
        "the README has not:\n{table}"
    );
}
