// Package snp judges AMD SEV-SNP attestation reports for the key server: who signed one, what it says, and whether a
// Policy allows that.
//
// A Verifier takes a report as the guest's firmware gives it, the certificates that came with it and those of its own, and follows
// the signature up to a root key that it was told to trust, known by its SHA-256. What it cannot follow is an error, and the report
// then says nothing. What it can follow is a Verdict: what the report says, and every complaint that a Policy has about
// it, at once. A Policy that says nothing allows nothing.
//
// Reports of versions 2, 3 and 5 are read (AMD SEV-SNP ABI, publication 56860), certificates as AMD's key service issues them (VCEK
// Certificate and KDS Interface Specification, publication 57230), of both kinds: VCEK, the chip's, and VLEK, the cloud's.
// Nothing here needs a network; KDS is a bounded cache in front of AMD's key service for those who want one.
//
// Parsing, roots and signatures lean on google/go-sev-guest. Its verify and validate packages are not used to decide: they refuse
// the certificates of Turin (structure 1: chip ids of 8 bytes, an FMC level), do not know Siena and Bergamo, stop at the first
// complaint, and take an unset field for "do not check". The tests hold this package's verdicts against theirs where both know the product.
package snp
