// Package access says who may do what at the key server.
//
// A Principal is a name with a credential, roles and an end. The credential is a bearer token or a client
// certificate; the store keeps a SHA-256 digest of it and nothing that could be shown in its place.
//
//   - A token is 32 random bytes. One SHA-256 is right for it: salt and slow hashing protect what can be guessed, and 256 random
//     bits cannot, neither from the digest nor with all digests at hand.
//   - A certificate is known by the SHA-256 of its public key (SubjectPublicKeyInfo), not by its subject. A subject is
//     as good as every CA that the server trusts, now and later, and as its care with names; a key is one key, and taking its row
//     away ends it at once, without a revocation list. The certificate must verify up to the server's client CA all the same, in the TLS
//     handshake. It may be renewed with the same key; another key is another principal.
//
// Roles, and what they allow (May):
//
//	                              register  release  audit  admin
//	ToRegister  images, secrets       ✓        –       –      ✓
//	ToRevoke    either, digest, chip  ✓        –       –      ✓
//	ToView      images, launches      ✓        –       ✓      ✓
//	ToReadAudit read, verify, export  –        –       ✓      ✓
//	ToRelease   sessions, secrets     –        ✓       –      –
//	ToManage    principals            –        –       –      ✓
//	ToBackUp    back up, restore      –        –       –      ✓
//
// release is for hosts: what it lets out only the measured machine can read, and it sees nothing else. It is no part of admin, so that
// an administrator's stolen credential does not start machines and a host's does not change policy. Nobody can read a
// secret. A principal may have several roles. The first administrator is made on the server's own machine, in the store.
//
// What a caller is told is one of ErrUnauthenticated, ErrForbidden and ErrBackOff, whose texts say nothing of the cause: a
// token that never was, one that was taken away and one that has expired look alike. The cause and, where a credential was
// found, the principal's name are in the *Failure, for audit and log.
//
// Failures slow their source down (SourceOf), and a principal whose own credential keeps being refused; nobody
// can slow another down by its name alone. Memory is bounded; times come in as arguments.
package access
