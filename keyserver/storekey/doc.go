// Package storekey gets the key server's store key, 32 random bytes, from where it is kept: always
// outside the store, so that neither is of use without the other.
//
// A place is spelled, on a command line or in a configuration file, in one of these ways:
//
//	file:PATH                      a file that nobody but its owner may read
//	env:NAME                       an environment variable
//	credential:NAME                a systemd credential (LoadCredential=, LoadCredentialEncrypted=)
//	age:PATH?identity=PATH         a file encrypted by age, and the file of an identity that opens it
//	vault:https://HOST[:PORT]/MOUNT/KEY?file=PATH&token-file=PATH[&ca-file=PATH][&namespace=NAME]
//	                               a file encrypted by Vault's transit engine (or OpenBao's) under KEY
//
// PATH goes to the next & or the end, character by character: there is no escape, so a path holds no control
// character, and behind age: and vault: no ? and no & either. Parameters come in any order, each once; others are refused.
//
// What is kept is everywhere the same text, one line, "sealboot-store-key-1 " and 64 hexadecimal digits. It goes
// from one place to another with the tools of the place: age -r RECIPIENT, systemd-creds encrypt, or
// base64 -w0 FILE | vault write -field=ciphertext transit/encrypt/KEY plaintext=-. What opens but is not that text is refused.
// At Vault the token needs update on transit/decrypt/KEY, and on transit/encrypt/KEY only while a key is put there (Keeper).
//
// Another KMS takes a Wrapper, two methods, inside a Wrapped.
//
// What each place is worth:
//
//   - credential, encrypted to the TPM, and vault: a copy of the disk alone does not hold the key.
//   - age: as good as the place of the identity; use it where key files are handed on or backed up.
//   - file: as good as the permissions. The file's owner must be the caller or root.
//   - env: the weakest. Other processes of the same user can read it in /proc as long as the process runs, even after it
//     was unset, children inherit it, and a Go string cannot be wiped.
//
// What a Source returns is for the caller to wipe. Buffers of this package are wiped; those inside age, net/http and
// crypto/tls are not within reach.
//
// Nothing here reads flags or the environment: Outside brings what a place needs of it.
package storekey
