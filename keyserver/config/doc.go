// Package config reads the key server's configuration file, TOML 1.0:
//
//	listen    = "0.0.0.0:8443"   address and port; the address is an IP address, or empty for all
//	store_key = "credential:store-key"   where the store key is: see package storekey
//	allow_plain_loopback = false   plain HTTP, on 127.0.0.1 or [::1], where there is no [tls]
//	trust_roots  = []       roots beside AMD's: SHA-256 of a key in hex, or a file
//	session_ttl  = "5m"     from a session to its measurement
//	max_sessions = 4096     open at once
//	rate         = 20       requests a second from one source
//	image_rate   = 20       requests a second for one image
//
//	[store]                 one of the two
//	folder = "/var/lib/sealboot/store"
//	url    = "postgres://sealboot@db.example.org/sealboot?sslmode=verify-full"
//	password_file = "..."   of the url's user
//
//	[tls]
//	cert, key = "...", "..."       files, read again when they change
//	client_ca = "..."              CAs of clients' certificates
//	require_client_cert  = false   nobody without a certificate under client_ca gets through the handshake
//	require_release_role = false   hosts must be principals with the role release
//
//	[log]
//	format, level = "text", "info"   text or json; debug, info, warn or error
//
//	[metrics]
//	listen = "127.0.0.1:9420"      Prometheus metrics
//
//	[page]
//	listen = "127.0.0.1:8421"      the owner's page
//
//	[snp]                          without it SEV-SNP is not served
//	bundle      = "..."            certificates and revocation lists from a file or folder
//	kds         = "off"            or the URL of AMD's key service
//	kds_cache   = "..."            folder for what it gave; needed with a URL
//
// There is no secret in the file: it names files that hold them. A password in the URL is refused. All files are named by
// absolute paths.
//
// Metrics and page are plain HTTP on loopback addresses, and have the server's TLS on others.
//
// What is unknown, misspelt, twice there or does not go together is refused, with all problems at once, each with
// its line, its key and what to do. What is not given has the default above; listen, store and store_key have none.
//
// Nothing here reads flags or the environment.
package config
