//! A template as SAM translates it, and how to read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::{Value, json};
use stele_tests::python::environments;
use stele_tests::repository;

pub static MAIN: LazyLock<Value> = LazyLock::new(|| translated("template.yaml"));
pub static MIRROR: LazyLock<Value> = LazyLock::new(|| translated("mirror.yaml"));

pub fn infra() -> PathBuf {
    repository().join("infra")
}

pub fn check(args: &[&str], templates: &[&Path]) -> Output {
    let mut command = Command::new(infra().join("check"));
    command
        .arg("--venvs")
        .arg(environments().unwrap())
        .args(args);
    command.args(templates).output().unwrap()
}

pub fn translated(name: &str) -> Value {
    let path = infra().join(name);
    let done = check(&["--translate"], &[&path]);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{error}");
    serde_json::from_slice(&done.stdout).unwrap()
}

pub fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The members of a list, or the one thing that stands for a list of itself.
pub fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    }
}

pub fn number_of(value: &Value) -> u64 {
    text(value).parse().unwrap()
}

pub fn of_type<'a>(template: &'a Value, wanted: &str) -> BTreeMap<&'a str, &'a Value> {
    let resources = template["Resources"].as_object().unwrap().iter();
    let found = resources.filter(|(_, resource)| resource["Type"] == wanted);
    found.map(|(name, one)| (name.as_str(), one)).collect()
}

/// An ARN as people read it: `data/…`, `mirror/…`, or `Resource.Arn`.
pub fn resource(value: &Value) -> String {
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
pub fn grants(template: &Value, role: &str) -> BTreeSet<String> {
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
