//! The templates in `infra/`: the linters accept them, and what SAM makes of them grants, keeps and
//! schedules exactly what is listed here. Every rule is shown to fail on a template that breaks it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::{Value, json};
use stele_tests::profile_dir;

/// What each role may do, as [`grants`] writes it. `data` is the bucket, `mirror` the other one.
const GRANTS: [(&str, &str); 4] = [
    (
        "IngestRole",
        "logs:CreateLogStream IngestLogs.Arn
         logs:PutLogEvents IngestLogs.Arn
         s3:GetObject data/control/clock
         s3:GetObject data/control/epoch/*
         s3:GetObject data/control/tokens/*
         s3:GetObject data/tenants/*/control/retention/*
         s3:GetObject data/tenants/*/idem/*
         s3:GetObject data/tenants/*/l0/*
         s3:ListBucket data
         s3:PutObject data/control/clock
         s3:PutObject data/tenants/*/idem/*
         s3:PutObject data/tenants/*/l0/*
         with a mirror: s3:GetObject data/tenants/*/control/repair/*
         with a mirror: s3:GetObject mirror/control/clock
         with a mirror: s3:GetObject mirror/control/epoch/*
         with a mirror: s3:GetObject mirror/control/tokens/*
         with a mirror: s3:GetObject mirror/tenants/*/control/repair/*
         with a mirror: s3:GetObject mirror/tenants/*/control/retention/*
         with a mirror: s3:GetObject mirror/tenants/*/idem/*
         with a mirror: s3:GetObject mirror/tenants/*/l0/*
         with a mirror: s3:ListBucket mirror
         with a mirror: s3:PutObject data/tenants/*/control/repair/*
         with a mirror: s3:PutObject mirror/control/clock
         with a mirror: s3:PutObject mirror/tenants/*/control/repair/*
         with a mirror: s3:PutObject mirror/tenants/*/idem/*
         with a mirror: s3:PutObject mirror/tenants/*/l0/*",
    ),
    (
        "QueryRole",
        "logs:CreateLogStream QueryLogs.Arn
         logs:PutLogEvents QueryLogs.Arn
         s3:GetObject data/*
         s3:ListBucket data
         with a mirror: s3:GetObject mirror/*
         with a mirror: s3:ListBucket mirror",
    ),
    (
        "CompactRole",
        "lambda:InvokeFunction CompactFunction.Arn
         logs:CreateLogStream CompactLogs.Arn
         logs:PutLogEvents CompactLogs.Arn
         s3:GetObject data/*
         s3:ListBucket data
         s3:PutObject data/control/clock
         s3:PutObject data/tenants/*/control/deletion/*
         s3:PutObject data/tenants/*/control/losses/*
         s3:PutObject data/tenants/*/ledger/*
         s3:PutObject data/tenants/*/table/*
         sqs:SendMessage CompactDeadLetters.Arn
         with a mirror: s3:GetObject mirror/*
         with a mirror: s3:ListBucket mirror
         with a mirror: s3:PutObject mirror/control/clock
         with a mirror: s3:PutObject mirror/tenants/*/control/deletion/*
         with a mirror: s3:PutObject mirror/tenants/*/control/losses/*
         with a mirror: s3:PutObject mirror/tenants/*/ledger/*
         with a mirror: s3:PutObject mirror/tenants/*/table/*",
    ),
    (
        "ProtectRole",
        "logs:CreateLogStream ProtectLogs.Arn
         logs:PutLogEvents ProtectLogs.Arn
         s3:DeleteObject data/tenants/*/idem/*
         s3:DeleteObject data/tenants/*/l0/*
         s3:DeleteObject data/tenants/*/ledger/*
         s3:DeleteObject data/tenants/*/pins/*
         s3:DeleteObject data/tenants/*/table/*
         s3:GetObject data/*
         s3:ListBucket data
         s3:PutObject data/control/clock
         s3:PutObject data/tenants/*/control/deletion/*
         s3:PutObject data/tenants/*/control/losses/*
         s3:PutObject data/tenants/*/ledger/*
         s3:PutObject data/tenants/*/pins/*
         s3:PutObject data/tenants/*/table/*
         sqs:SendMessage ProtectDeadLetters.Arn
         with a mirror: s3:DeleteObject data/tenants/*/control/repair/*
         with a mirror: s3:DeleteObject mirror/tenants/*/control/repair/*
         with a mirror: s3:DeleteObject mirror/tenants/*/idem/*
         with a mirror: s3:DeleteObject mirror/tenants/*/l0/*
         with a mirror: s3:DeleteObject mirror/tenants/*/ledger/*
         with a mirror: s3:DeleteObject mirror/tenants/*/pins/*
         with a mirror: s3:DeleteObject mirror/tenants/*/table/*
         with a mirror: s3:GetObject mirror/*
         with a mirror: s3:ListBucket mirror
         with a mirror: s3:PutObject data/control/epoch/*
         with a mirror: s3:PutObject data/control/tokens/*
         with a mirror: s3:PutObject data/tenants/*/control/retention/*
         with a mirror: s3:PutObject data/tenants/*/control/rollups/*
         with a mirror: s3:PutObject data/tenants/*/idem/*
         with a mirror: s3:PutObject data/tenants/*/l0/*
         with a mirror: s3:PutObject mirror/control/clock
         with a mirror: s3:PutObject mirror/control/epoch/*
         with a mirror: s3:PutObject mirror/control/tokens/*
         with a mirror: s3:PutObject mirror/tenants/*/control/deletion/*
         with a mirror: s3:PutObject mirror/tenants/*/control/losses/*
         with a mirror: s3:PutObject mirror/tenants/*/control/retention/*
         with a mirror: s3:PutObject mirror/tenants/*/control/rollups/*
         with a mirror: s3:PutObject mirror/tenants/*/idem/*
         with a mirror: s3:PutObject mirror/tenants/*/l0/*
         with a mirror: s3:PutObject mirror/tenants/*/ledger/*
         with a mirror: s3:PutObject mirror/tenants/*/pins/*
         with a mirror: s3:PutObject mirror/tenants/*/table/*",
    ),
];

/// What runs when: function, input, schedule, and when.
const SCHEDULES: [[&str; 4]; 6] = [
    ["Compact", "compact", "rate(1 minute)", "always"],
    ["Protect", "expire", "rate(1 hour)", "always"],
    ["Protect", "snapshots", "rate(10 minutes)", "always"],
    ["Protect", "sweep", "rate(5 minutes)", "always"],
    ["Protect", "sync", "rate(1 minute)", "with a mirror"],
    ["Protect", "verify", "rate(1 day)", "always"],
];

/// Alarms: name, namespace, metric, what it is of.
const ALARMS: [[&str; 4]; 13] = [
    [
        "CompactDead",
        "AWS/SQS",
        "ApproximateNumberOfMessagesVisible",
        "CompactDeadLetters",
    ],
    ["CompactErrors", "AWS/Lambda", "Errors", "CompactFunction"],
    [
        "CompactThrottles",
        "AWS/Lambda",
        "Throttles",
        "CompactFunction",
    ],
    ["IngestErrors", "AWS/Lambda", "Errors", "IngestFunction"],
    [
        "IngestThrottles",
        "AWS/Lambda",
        "Throttles",
        "IngestFunction",
    ],
    [
        "IngestUnavailable",
        "AWS/Lambda",
        "Url5xxCount",
        "IngestFunction",
    ],
    ["LagAlarm", "Stele", "LagSeconds", "CompactFunction"],
    [
        "ProtectDead",
        "AWS/SQS",
        "ApproximateNumberOfMessagesVisible",
        "ProtectDeadLetters",
    ],
    ["ProtectErrors", "AWS/Lambda", "Errors", "ProtectFunction"],
    [
        "ProtectThrottles",
        "AWS/Lambda",
        "Throttles",
        "ProtectFunction",
    ],
    ["QueryErrors", "AWS/Lambda", "Errors", "QueryFunction"],
    ["QueryThrottles", "AWS/Lambda", "Throttles", "QueryFunction"],
    [
        "QueryUnavailable",
        "AWS/Lambda",
        "Url5xxCount",
        "QueryFunction",
    ],
];

/// Checks of checkov that are skipped, each with its reason in the template.
const SKIPPED: [&str; 7] = [
    "CKV_AWS_116",
    "CKV_AWS_117",
    "CKV_AWS_158",
    "CKV_AWS_173",
    "CKV_AWS_18",
    "CKV_AWS_258",
    "CKV_AWS_27",
];

const FUNCTIONS: [&str; 4] = ["Compact", "Ingest", "Protect", "Query"];

static MAIN: LazyLock<Value> = LazyLock::new(|| translated("template.yaml"));
static MIRROR: LazyLock<Value> = LazyLock::new(|| translated("mirror.yaml"));

fn infra() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra")
}

fn check(args: &[&str], templates: &[&Path]) -> Output {
    let profile = profile_dir().unwrap();
    let venvs = profile.parent().unwrap().join("stele-tests");
    let mut command = Command::new(infra().join("check"));
    command.arg("--venvs").arg(venvs).args(args);
    command.args(templates).output().unwrap()
}

fn translated(name: &str) -> Value {
    let path = infra().join(name);
    let done = check(&["--translate"], &[&path]);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{error}");
    serde_json::from_slice(&done.stdout).unwrap()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The members of a list, or the one thing that stands for a list of itself.
fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    }
}

fn number_of(value: &Value) -> u64 {
    text(value).parse().unwrap()
}

fn of_type<'a>(template: &'a Value, wanted: &str) -> BTreeMap<&'a str, &'a Value> {
    let resources = template["Resources"].as_object().unwrap().iter();
    let found = resources.filter(|(_, resource)| resource["Type"] == wanted);
    found.map(|(name, one)| (name.as_str(), one)).collect()
}

/// An ARN as people read it: `data/…`, `mirror/…`, or `Resource.Arn`.
fn resource(value: &Value) -> String {
    if let Some(Value::Array(parts)) = value.get("Fn::GetAtt") {
        return parts.iter().map(text).collect::<Vec<_>>().join(".");
    }
    let sub = text(value.get("Fn::Sub").unwrap_or(value));
    let whole = sub.replace("arn:${AWS::Partition}:s3:::", "");
    let named = whole
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'));
    if let Some(attribute) = named.filter(|name| name.contains('.')) {
        return attribute.to_owned();
    }
    let whole = whole.replace("${BucketName}/${Prefix}/", "data/");
    let whole = whole.replace("${MirrorBucket}/${Prefix}/", "mirror/");
    whole
        .replace("${BucketName}", "data")
        .replace("${MirrorBucket}", "mirror")
}

/// Everything `role` may do, one line for each action on each resource.
fn grants(template: &Value, role: &str) -> BTreeSet<String> {
    let mut documents = Vec::new();
    for policy in each(&template["Resources"][role]["Properties"]["Policies"]) {
        documents.push((Value::Null, &policy["PolicyDocument"]));
    }
    for policy in of_type(template, "AWS::IAM::Policy").values() {
        let properties = &policy["Properties"];
        if each(&properties["Roles"]).contains(&&json!({"Ref": role})) {
            documents.push((policy["Condition"].clone(), &properties["PolicyDocument"]));
        }
    }
    let mut lines = BTreeSet::new();
    for (condition, document) in documents {
        let when = match condition.as_str() {
            None => String::new(),
            Some("HasMirror") => "with a mirror: ".to_owned(),
            Some(other) => format!("when {other}: "),
        };
        for statement in each(&document["Statement"]) {
            let known = ["Sid", "Effect", "Action", "Resource"];
            let keys = statement.as_object().unwrap().keys();
            let odd: Vec<&String> = keys.filter(|key| !known.contains(&key.as_str())).collect();
            if statement["Effect"] != "Allow" || !odd.is_empty() {
                lines.insert(format!("{when}{statement}"));
            }
            for action in each(&statement["Action"]) {
                for one in each(&statement["Resource"]) {
                    lines.insert(format!("{when}{} {}", text(action), resource(one)));
                }
            }
        }
    }
    lines
}

/// Says so when `found` is not `wanted`.
fn compare(problems: &mut Vec<String>, what: &str, found: &Value, wanted: &Value) {
    if found != wanted {
        problems.push(format!("{what}: {found}, not {wanted}"));
    }
}

fn roles(template: &Value, problems: &mut Vec<String>) {
    let named: BTreeSet<&str> = GRANTS.iter().map(|(role, _)| *role).collect();
    let found = of_type(template, "AWS::IAM::Role");
    if found.keys().copied().collect::<BTreeSet<_>>() != named {
        problems.push(format!("roles: {:?}", found.keys()));
    }
    for (role, wanted) in GRANTS {
        let wanted: BTreeSet<String> = wanted.lines().map(|one| one.trim().to_owned()).collect();
        let found = grants(template, role);
        for extra in found.difference(&wanted) {
            problems.push(format!("{role} may {extra}"));
        }
        for missing in wanted.difference(&found) {
            problems.push(format!("{role} may not {missing}"));
        }
        let properties = &template["Resources"][role]["Properties"];
        compare(
            problems,
            role,
            &properties["ManagedPolicyArns"],
            &Value::Null,
        );
        let trust = &properties["AssumeRolePolicyDocument"]["Statement"];
        let lambda = json!([{"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": "lambda.amazonaws.com"}}]);
        compare(problems, &format!("{role} is assumed by"), trust, &lambda);
    }
    for name in FUNCTIONS {
        let function = &template["Resources"][format!("{name}Function")]["Properties"];
        let role = json!({"Fn::GetAtt": [format!("{name}Role"), "Arn"]});
        compare(
            problems,
            &format!("{name} runs as"),
            &function["Role"],
            &role,
        );
    }
}

/// The rules of a data bucket, which are those of a mirror's, too.
fn bucket(template: &Value, name: &str, problems: &mut Vec<String>) {
    let resource = &template["Resources"][name];
    let properties = &resource["Properties"];
    let sse = json!([{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]);
    let lock = json!({"Fn::If": ["HasLock", {"ObjectLockEnabled": "Enabled", "Rule":
        {"DefaultRetention": {"Mode": {"Ref": "ObjectLockMode"},
        "Days": {"Ref": "ObjectLockDays"}}}}, {"Ref": "AWS::NoValue"}]});
    let lifecycle = json!([
        {"Id": "noncurrent-versions", "Status": "Enabled", "ExpiredObjectDeleteMarker": true,
            "NoncurrentVersionExpiration": {"NoncurrentDays": {"Ref": "NoncurrentDays"}}},
        {"Id": "aborted-uploads", "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
        {"Id": "clock", "Status": "Enabled", "Prefix": {"Fn::Sub": "${Prefix}/control/clock"},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}]);
    let public = json!({"BlockPublicAcls": true, "BlockPublicPolicy": true,
        "IgnorePublicAcls": true, "RestrictPublicBuckets": true});
    let rules = [
        (
            "DeletionPolicy",
            &resource["DeletionPolicy"],
            json!("Retain"),
        ),
        (
            "UpdateReplacePolicy",
            &resource["UpdateReplacePolicy"],
            json!("Retain"),
        ),
        (
            "versioning",
            &properties["VersioningConfiguration"],
            json!({"Status": "Enabled"}),
        ),
        (
            "encryption",
            &properties["BucketEncryption"]["ServerSideEncryptionConfiguration"],
            sse,
        ),
        (
            "public access",
            &properties["PublicAccessBlockConfiguration"],
            public,
        ),
        (
            "lifecycle",
            &properties["LifecycleConfiguration"]["Rules"],
            lifecycle,
        ),
        ("Object Lock", &properties["ObjectLockConfiguration"], lock),
    ];
    for (what, found, wanted) in &rules {
        compare(problems, &format!("{name}: {what}"), found, wanted);
    }
}

/// The bucket's policy, where `protect` is how the template names the role that deletes.
fn policy(template: &Value, name: &str, protect: &Value, problems: &mut Vec<String>) {
    let resource = &template["Resources"][name];
    compare(
        problems,
        name,
        &resource["DeletionPolicy"],
        &json!("Retain"),
    );
    let sub = |key: &str| json!({"Fn::Sub": format!("arn:${{AWS::Partition}}:s3:::{key}")});
    let key = |key: &str| sub(&format!("${{BucketName}}/${{Prefix}}/{key}"));
    let entries = key("tenants/*/table/_delta_log/*.json");
    let create = json!({"Null": {"s3:if-none-match": "true"}});
    let deleters = json!({"aws:PrincipalArn": {"Fn::If": ["HasOperators", {"Fn::Split": [",",
        {"Fn::Join": [",", [protect, {"Fn::Join": [",", {"Ref": "OperatorArns"}]}]]}]},
        [protect]]}});
    let all = sub("${BucketName}/*");
    let wanted = json!([
        {"Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
            "Resource": [sub("${BucketName}"), all],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        {"Sid": "CreateOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
            "NotResource": [key("control/clock"),
                key("tenants/*/table/_delta_log/_last_checkpoint"), entries],
            "Condition": create},
        {"Sid": "CreateOnlyLogEntries", "Effect": "Deny", "Principal": "*",
            "Action": "s3:PutObject", "Resource": entries,
            "Condition": {"Null": create["Null"], "ArnNotLike": deleters}},
        {"Sid": "OnlySweepDeletes", "Effect": "Deny", "Principal": "*",
            "Action": "s3:DeleteObject", "Resource": all,
            "Condition": {"ArnNotLike": deleters}},
        {"Sid": "NobodyDeletesVersions", "Effect": "Deny", "Principal": "*",
            "Action": ["s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"],
            "Resource": all}]);
    let found = &resource["Properties"]["PolicyDocument"]["Statement"];
    for one in wanted.as_array().unwrap() {
        if !each(found).contains(&one) {
            problems.push(format!("{name}: {} is not as it should be", one["Sid"]));
        }
    }
    if each(found).len() != each(&wanted).len() {
        problems.push(format!("{name}: {} statements", each(found).len()));
    }
}

fn schedules(template: &Value, problems: &mut Vec<String>) {
    let mut found = Vec::new();
    for (name, rule) in of_type(template, "AWS::Events::Rule") {
        let properties = &rule["Properties"];
        let targets = each(&properties["Targets"]);
        let target = targets[0];
        let function = text(&target["Arn"]["Fn::GetAtt"][0]).replace("Function", "");
        let dead = json!({"Fn::GetAtt": [format!("{function}DeadLetters"), "Arn"]});
        compare(problems, name, &target["DeadLetterConfig"]["Arn"], &dead);
        let input: Value = serde_json::from_str(&text(&target["Input"])).unwrap_or_default();
        let when = match &properties["State"] {
            Value::Null => "always".to_owned(),
            state if *state == json!({"Fn::If": ["HasMirror", "ENABLED", "DISABLED"]}) => {
                "with a mirror".to_owned()
            }
            other => text(other),
        };
        let job = text(&input["job"]);
        if targets.len() != 1 || input != json!({"job": job}) {
            problems.push(format!("{name}: {properties}"));
        }
        found.push([function, job, text(&properties["ScheduleExpression"]), when]);
    }
    found.sort();
    if found != SCHEDULES.map(|row| row.map(str::to_owned)) {
        problems.push(format!("schedules: {found:?}"));
    }
}

fn functions(template: &Value, problems: &mut Vec<String>) {
    for name in FUNCTIONS {
        let function = &template["Resources"][format!("{name}Function")]["Properties"];
        let is_served = matches!(name, "Ingest" | "Query");
        let in_class = |what: &str| {
            let key = format!("{name}{what}");
            json!({"Fn::FindInMap": ["Size", {"Ref": "SizeClass"}, key]})
        };
        let dead = match is_served {
            true => Value::Null,
            false => {
                json!({"TargetArn": {"Fn::GetAtt": [format!("{name}DeadLetters"), "Arn"]}})
            }
        };
        let binary = json!(format!(
            "../target/lambda/stele-fn-{}/",
            name.to_lowercase()
        ));
        let rules = [
            ("Runtime", json!("provided.al2023")),
            ("Handler", json!("bootstrap")),
            ("Architectures", json!([{"Ref": "Architecture"}])),
            ("MemorySize", in_class("Memory")),
            ("ReservedConcurrentExecutions", in_class("Concurrency")),
            ("DeadLetterConfig", dead),
            (
                "LoggingConfig",
                json!({"LogGroup": {"Ref": format!("{name}Logs")}}),
            ),
        ];
        compare(problems, name, &function["Code"]["S3Key"], &binary);
        for (what, wanted) in &rules {
            compare(
                problems,
                &format!("{name}: {what}"),
                &function[*what],
                wanted,
            );
        }
        let store = &function["Environment"]["Variables"]["STELE_STORE"];
        compare(
            problems,
            name,
            store,
            &json!({"Fn::Sub": "s3://${BucketName}/${Prefix}"}),
        );
    }
    let urls = of_type(template, "AWS::Lambda::Url")
        .into_iter()
        .map(|(name, url)| {
            let properties = &url["Properties"];
            (
                name,
                text(&properties["AuthType"]),
                text(&properties["InvokeMode"]),
            )
        });
    let urls: Vec<_> = urls.collect();
    let none = || "NONE".to_owned();
    if urls
        != [
            ("IngestFunctionUrl", none(), "BUFFERED".to_owned()),
            ("QueryFunctionUrl", none(), "RESPONSE_STREAM".to_owned()),
        ]
    {
        problems.push(format!("URLs: {urls:?}"));
    }
    for (class, sizes) in template["Mappings"]["Size"].as_object().unwrap() {
        let number = |key: &str| number_of(&sizes[key]);
        let (budget, mib) = (number("QueryBudget"), number("QueryMemory"));
        if budget != (mib << 20) / 2 {
            problems.push(format!("{class}: QueryBudget is not half of {mib} MiB"));
        }
        // A tick starts every minute and may take the whole time that it has.
        let ticks =
            number_of(&template["Resources"]["CompactFunction"]["Properties"]["Timeout"]) / 60;
        if number("CompactConcurrency") != ticks * (1 + number("FanOut")) {
            problems.push(format!("{class}: not {ticks} ticks with their fan-out"));
        }
    }
}

fn watching(template: &Value, problems: &mut Vec<String>) {
    let alarms = of_type(template, "AWS::CloudWatch::Alarm");
    let found = alarms.iter().map(|(name, alarm)| {
        let properties = &alarm["Properties"];
        let of = &properties["Dimensions"][0]["Value"];
        let of = of.get("Ref").unwrap_or(&of["Fn::GetAtt"][0]);
        let texts = [&properties["Namespace"], &properties["MetricName"], of].map(text);
        let [namespace, metric, of] = texts;
        [(*name).to_owned(), namespace, metric, of]
    });
    let found: Vec<_> = found.collect();
    if found != ALARMS.map(|row| row.map(str::to_owned)) {
        problems.push(format!("alarms: {found:?}"));
    }
    let silence = &template["Resources"]["LagAlarm"]["Properties"]["TreatMissingData"];
    compare(
        problems,
        "LagAlarm in silence",
        silence,
        &json!("breaching"),
    );
    for name in ["CompactDeadLetters", "ProtectDeadLetters"] {
        let queue = &template["Resources"][name]["Properties"];
        compare(problems, name, &queue["SqsManagedSseEnabled"], &json!(true));
        compare(
            problems,
            name,
            &queue["MessageRetentionPeriod"],
            &json!(1_209_600),
        );
    }
}

/// Everything that is wrong with a translated `template.yaml`.
fn problems(template: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    roles(template, &mut problems);
    bucket(template, "DataBucket", &mut problems);
    let protect = json!({"Fn::GetAtt": ["ProtectRole", "Arn"]});
    policy(template, "DataBucketPolicy", &protect, &mut problems);
    schedules(template, &mut problems);
    functions(template, &mut problems);
    watching(template, &mut problems);
    problems
}

/// Everything that is wrong with a translated `mirror.yaml`.
fn problems_of_mirror(template: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    bucket(template, "MirrorBucket", &mut problems);
    let protect = json!({"Ref": "ProtectRoleArn"});
    policy(template, "MirrorBucketPolicy", &protect, &mut problems);
    problems
}

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
