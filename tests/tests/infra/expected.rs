//! What the templates are to grant, schedule and watch, and which checks they skip.

/// What each role may do, as [`grants`] writes it. `data` is the bucket, `mirror` the other one.
pub const GRANTS: [(&str, &str); 4] = [
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
pub const SCHEDULES: [[&str; 4]; 6] = [
    ["Compact", "compact", "rate(1 minute)", "always"],
    ["Protect", "expire", "rate(1 hour)", "always"],
    ["Protect", "snapshots", "rate(10 minutes)", "always"],
    ["Protect", "sweep", "rate(5 minutes)", "always"],
    ["Protect", "sync", "rate(1 minute)", "with a mirror"],
    ["Protect", "verify", "rate(1 day)", "always"],
];

/// Alarms: name, namespace, metric, what it is of.
pub const ALARMS: [[&str; 4]; 13] = [
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
pub const SKIPPED: [&str; 7] = [
    "CKV_AWS_116",
    "CKV_AWS_117",
    "CKV_AWS_158",
    "CKV_AWS_173",
    "CKV_AWS_18",
    "CKV_AWS_258",
    "CKV_AWS_27",
];

pub const FUNCTIONS: [&str; 4] = ["Compact", "Ingest", "Protect", "Query"];
