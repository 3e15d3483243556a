//! What is wrong with a translated template, a sentence for each thing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::expected::{ALARMS, FUNCTIONS, GRANTS, SCHEDULES};
use crate::template::{each, grants, number_of, of_type, text};

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
pub fn problems(template: &Value) -> Vec<String> {
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
pub fn problems_of_mirror(template: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    bucket(template, "MirrorBucket", &mut problems);
    let protect = json!({"Ref": "ProtectRoleArn"});
    policy(template, "MirrorBucketPolicy", &protect, &mut problems);
    problems
}
