// Package keyserver keeps the secrets of images and releases them to machines whose launch
// measurement, or whose attestation report, fits the image's boot record. PROTOCOL.md is its outside: messages, classes
// of failure, what a host can learn and what it cannot.
//
// What goes in: a boot record, a Policy and secrets (Store.Register, SetPolicy, PutSecret, RotateSecret), and what
// is out of use (Store.Revoke); a platform's certificates (Server.OpenSession); a session's measurement (Server.Release), or a running
// SEV-SNP guest's challenge and report (Server.OpenChallenge, Server.Report; package snp verifies); a guest's
// word that it has used a new secret (Server.Confirm). What comes out: a launch session whose keys only the platform's secure
// processor and the store know, and a packet that only the measured machine opens.
//
// It promises:
//
//   - The session is the server's own: policy, TIK and TEK are chosen here, for a platform whose certificates lead to
//     a trusted root. What a host says about policy is never asked.
//   - One session, one measurement, at most one release: the state that ends a session, and the audit entry, are on the
//     disk before the packet leaves. A crash in between loses the packet and nothing else.
//   - No policy, no digest, no secret, no root to trust: each of these refuses, and so does a restriction that a policy
//     leaves out. There is one judge, Judge, which gives every complaint at once; sessions, releases and trials go through it.
//   - What was judged is released only if it still stands when it is written: the policy, the secrets, the revocations and the
//     number of releases.
//   - In the store, secrets and sessions' keys are sealed under a Key from outside. An image's secrets are one value, bound to the
//     image's name, version, record and policy: who can write the database but has no key, cannot bring the server to release
//     one for another digest, under another policy, or in a version from before.
//   - A rotated secret's old version stays until the guest has confirmed the new one, and is gone from the store then.
//   - A host is told a class (wire.Class); the cause goes to the audit, whose rows are chained and signed (auditlog), and to the log. No secret
//     goes to either.
//
// The store is SQLite in a folder or PostgreSQL by a connection string (Store); any number of servers may share the
// latter. Store.Backup and Restore take it from one place to another.
//
// Clock and randomness come in; nothing here reads flags or the environment, but for what the PostgreSQL driver reads as libpq
// does (PGPASSFILE, PGSERVICEFILE and so on).
package keyserver
