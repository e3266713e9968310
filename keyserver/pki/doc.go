// Package pki is a small certificate authority for a start: one key, which signs certificates for the key server's
// names and for the principals of package access. Who has a CA already needs none of it.
//
// Start makes a folder with all of it. Keys never travel: Server and Client sign a public key, Renew a
// certificate, and only who makes a key writes it.
//
//   - Keys are P-256 with ECDSA and SHA-256, which every TLS 1.3 implementation must have (RFC 8446, section 9.1);
//     Ed25519 need not be there, and browsers lack it.
//   - The CA may sign no other CA (path length 0), and speaks for the names and addresses that it was made for, and those below such names, alone:
//     name constraints, critical (RFC 5280, section 4.2.1.10). Who trusts it for the key server trusts it for nothing else.
//   - A server's certificate is for servers, a client's for clients: neither is taken in the other's place.
//   - A client's certificate names its principal, for people. The key server knows it by its key, so Renew keeps the key, and a new
//     key means to register it again.
//   - Serial numbers are random, of 126 bits. There are no revocation lists: a principal is taken away at the key server, at once.
//
// Key files are written with mode 0600, whole or not at all, and never over another file; the CA's key belongs on another
// machine than the server.
package pki
