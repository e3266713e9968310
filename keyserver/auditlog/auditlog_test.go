package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var testTime = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func testSigner(t testing.TB, name string) *Signer {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	s, err := NewSigner(seed[:])
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testLog makes n rows, with a checkpoint after each third and after the last.
func testLog(t testing.TB, s *Signer, n int) (rows []Row, notes map[int64][]byte) {
	t.Helper()
	notes = map[int64][]byte{}
	head := Head{}
	for i := range n {
		entry := fmt.Appendf(nil, `{"event":"release","image":"web<%d>"}`, i)
		head = head.Next(entry)
		rows = append(rows, Row{Seq: head.Size, Hash: head.Hash, Entry: entry})
		if i%3 == 2 || i == n-1 {
			notes[head.Size] = s.Sign(Checkpoint{Head: head, Time: testTime.Add(time.Duration(i) * time.Second)})
		}
	}
	return rows, notes
}

// export writes rows with the checkpoints that they have.
func export(t testing.TB, rows []Row, notes map[int64][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, r := range rows {
		must(t, w.Row(r))
		if note := notes[r.Seq]; note != nil {
			must(t, w.Checkpoint(note))
		}
	}
	return b.Bytes()
}

func ignore(Row) error { return nil }

// TestRowHash holds the encoding to what the package's comment says, byte by byte.
func TestRowHash(t *testing.T) {
	h := Head{Size: 0x0102030405060707, Hash: Hash{1, 2, 3}}
	text := "sealboot audit row 1\n" + string(h.Hash[:]) + "\x01\x02\x03\x04\x05\x06\x07\x08" + "\x00\x00\x00\x00\x00\x00\x00\x02" + "{}"
	if got, want := h.Next([]byte("{}")), sha256.Sum256([]byte(text)); got.Hash != want || got.Size != 0x0102030405060708 {
		t.Errorf("got %x, want %x", got.Hash, want)
	}
}

// TestSpoiltExport starts from an export that holds and does one thing to it: each is found, at the right row.
func TestSpoiltExport(t *testing.T) {
	signer := testSigner(t, "one")
	key := signer.PublicKey()
	rows, notes := testLog(t, signer, 10)
	last, err := key.Open(notes[10])
	must(t, err)
	third, err := key.Open(notes[3])
	must(t, err)
	good := export(t, rows, notes)
	count := 0
	s, err := key.Verify(bytes.NewReader(good), []Checkpoint{third, last}, func(r Row) error {
		if count++; string(r.Entry) != string(rows[count-1].Entry) {
			t.Errorf("row %d reads %s", count, r.Entry)
		}
		return nil
	})
	must(t, err)
	if s.Rows != 10 || count != 10 || s.Checkpoints != 4 || s.Last != last || s.First != (Checkpoint{}) {
		t.Fatalf("summary %+v", s)
	}
	// rechain computes the hashes anew, as somebody without the key can.
	rechain := func(rows []Row) []Row {
		head := Head{}
		for i := range rows {
			head = head.Next(rows[i].Entry)
			rows[i].Seq, rows[i].Hash = head.Size, head.Hash
		}
		return rows
	}
	change := func(rows []Row, i int) []Row {
		rows[i].Entry = []byte(`{"event":"release","image":"other"}`)
		return rows
	}
	for _, attack := range []struct {
		name  string
		seq   int64
		spoil func(rows []Row, notes map[int64][]byte) []Row
	}{
		{"changed", 5, func(r []Row, _ map[int64][]byte) []Row { return change(r, 4) }},
		{"changed, chained anew", 6, func(r []Row, _ map[int64][]byte) []Row { return rechain(change(r, 4)) }},
		{"dropped", 5, func(r []Row, _ map[int64][]byte) []Row { return slices.Delete(r, 4, 5) }},
		{"dropped, chained anew", 6, func(r []Row, _ map[int64][]byte) []Row { return rechain(slices.Delete(r, 4, 5)) }},
		{"swapped", 4, func(r []Row, _ map[int64][]byte) []Row { r[3], r[4] = r[4], r[3]; return r }},
		{"entries swapped, chained anew", 6, func(r []Row, _ map[int64][]byte) []Row {
			r[3].Entry, r[4].Entry = r[4].Entry, r[3].Entry
			return rechain(r)
		}},
		{"inserted", 6, func(r []Row, _ map[int64][]byte) []Row { return slices.Insert(r, 5, r[4]) }},
		{"inserted, chained anew", 6, func(r []Row, _ map[int64][]byte) []Row { return rechain(slices.Insert(r, 4, r[4])) }},
		{"cut off", 7, func(r []Row, _ map[int64][]byte) []Row { return r[:8] }}, // rows 7 and 8 are not signed
		{"cut off behind a checkpoint", 7, func(r []Row, _ map[int64][]byte) []Row { return r[:6] }},
		{"first dropped", 1, func(r []Row, _ map[int64][]byte) []Row { return r[1:] }},
		{"last checkpoint dropped", 10, func(r []Row, n map[int64][]byte) []Row { delete(n, 10); return r }},
		{"checkpoint swapped", 4, func(r []Row, n map[int64][]byte) []Row { n[3] = n[6]; return r }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			mine := map[int64][]byte{}
			for k, v := range notes {
				mine[k] = v
			}
			spoilt := export(t, attack.spoil(slices.Clone(rows), mine), mine)
			s, err := key.Verify(bytes.NewReader(spoilt), []Checkpoint{last}, ignore)
			chain := (*ChainError)(nil)
			if !errors.As(err, &chain) || s != (Summary{}) {
				t.Fatalf("got %v", err)
			}
			if chain.Seq != attack.seq {
				t.Errorf("found at row %d: %v, want %d", chain.Seq, err, attack.seq)
			}
		})
	}
}

// TestRolledBack gives an export that holds by itself, of an earlier time or of another course of things: a kept checkpoint finds it.
func TestRolledBack(t *testing.T) {
	signer := testSigner(t, "one")
	key := signer.PublicKey()
	rows, notes := testLog(t, signer, 9)
	kept, err := key.Open(notes[9])
	must(t, err)
	_, err = key.Verify(bytes.NewReader(export(t, rows, notes)), []Checkpoint{kept}, ignore)
	must(t, err)

	early := export(t, rows[:6], notes)
	if _, err := key.Verify(bytes.NewReader(early), nil, ignore); err != nil {
		t.Fatal(err)
	}
	_, err = key.Verify(bytes.NewReader(early), []Checkpoint{kept}, ignore)
	wantRow(t, err, 7)

	otherRows, head := slices.Clone(rows[:6]), Head{Size: 6, Hash: rows[5].Hash}
	for range 3 {
		head = head.Next([]byte(`{"event":"expire"}`))
		otherRows = append(otherRows, Row{Seq: head.Size, Hash: head.Hash, Entry: []byte(`{"event":"expire"}`)})
	}
	other := export(t, otherRows, map[int64][]byte{9: signer.Sign(Checkpoint{Head: head, Time: testTime})})
	if _, err := key.Verify(bytes.NewReader(other), nil, ignore); err != nil {
		t.Fatal(err)
	}
	_, err = key.Verify(bytes.NewReader(other), []Checkpoint{kept}, ignore)
	wantRow(t, err, 9)
}

func wantRow(t *testing.T, err error, seq int64) {
	t.Helper()
	chain := (*ChainError)(nil)
	if !errors.As(err, &chain) || chain.Seq != seq {
		t.Errorf("got %v, want row %d", err, seq)
	}
}

// TestFollowingExport verifies an export that goes on from the checkpoint of another, alone and behind it.
func TestFollowingExport(t *testing.T) {
	signer := testSigner(t, "one")
	key := signer.PublicKey()
	rows, notes := testLog(t, signer, 9)
	first := export(t, rows[:6], notes)
	var b bytes.Buffer
	must(t, NewWriter(&b).Checkpoint(notes[6]))
	second := append(b.Bytes(), export(t, rows[6:], notes)...)
	s, err := key.Verify(bytes.NewReader(second), nil, ignore)
	must(t, err)
	if s.First.Size != 6 || s.Last.Size != 9 || s.Rows != 3 {
		t.Errorf("%+v", s)
	}
	s, err = key.Verify(bytes.NewReader(append(first, second...)), nil, ignore)
	must(t, err)
	if s.First.Size != 0 || s.Last.Size != 9 || s.Rows != 9 {
		t.Errorf("%+v", s)
	}
	// A checkpoint that such an export cannot speak for is not passed over.
	kept, err := key.Open(notes[3])
	must(t, err)
	_, err = key.Verify(bytes.NewReader(second), []Checkpoint{kept}, ignore)
	wantRow(t, err, 4)
}

// TestSpoiltText spoils an export's text where the chain is not concerned.
func TestSpoiltText(t *testing.T) {
	signer := testSigner(t, "one")
	key := signer.PublicKey()
	rows, notes := testLog(t, signer, 3)
	good := string(export(t, rows, notes))
	for _, bad := range []struct {
		name, text string
		want       error
	}{
		{"empty", "", ErrExport},
		{"last line cut off", good[:len(good)-1], ErrExport},
		{"space", strings.Replace(good, `{"seq":1`, `{"seq": 1`, 1), ErrExport},
		{"leading zero", strings.Replace(good, `"seq":1`, `"seq":01`, 1), ErrExport},
		{"plus sign", strings.Replace(good, `"seq":1`, `"seq":+1`, 1), ErrExport},
		{"upper case", strings.Replace(good, rows[0].Hash.String(), strings.ToUpper(rows[0].Hash.String()), 1), ErrExport},
		{"short hash", strings.Replace(good, rows[0].Hash.String(), rows[0].Hash.String()[2:], 1), ErrExport},
		{"no object", strings.Replace(good, string(rows[0].Entry), `1`, 1), ErrExport},
		{"broken object", strings.Replace(good, string(rows[0].Entry), `{"a":1}}`, 1), ErrExport},
		{"empty line", strings.Replace(good, "\n", "\n\n", 1), ErrExport},
		{"carriage return", strings.Replace(good, "\n", "\r\n", 1), ErrExport},
		{"long line", strings.Replace(good, "web", strings.Repeat("w", MaxLine), 1), ErrExport},
		{"escaped otherwise", strings.Replace(good, `{"checkpoint":"s`, `{"checkpoint":"\u0073`, 1), ErrExport},
		{"signature spoilt", string(export(t, rows, map[int64][]byte{3: spoilSignature(notes[3])})), ErrSignature},
		{"signed by another", string(export(t, rows, map[int64][]byte{3: testSigner(t, "two").Sign(Checkpoint{Head: Head{3, rows[2].Hash}, Time: testTime})})), ErrSignature},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if bad.text == good {
				t.Fatal("nothing was spoilt")
			}
			if _, err := key.Verify(strings.NewReader(bad.text), nil, ignore); !errors.Is(err, bad.want) {
				t.Errorf("got %v, want %v", err, bad.want)
			}
		})
	}
	stop := errors.New("stop")
	if _, err := key.Verify(strings.NewReader(good), nil, func(Row) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if err := NewWriter(new(bytes.Buffer)).Row(Row{Seq: 1, Entry: make([]byte, MaxLine)}); err == nil {
		t.Error("a line was written that is not read")
	}
}

// spoilSignature changes a bit of the signature.
func spoilSignature(note []byte) []byte {
	lines := strings.Split(strings.TrimSuffix(string(note), "\n"), " ")
	b, _ := base64.StdEncoding.DecodeString(lines[len(lines)-1])
	b[10] ^= 1
	lines[len(lines)-1] = base64.StdEncoding.EncodeToString(b)
	return []byte(strings.Join(lines, " ") + "\n")
}

// TestSpoiltCheckpoint starts from a note that opens. Those that are signed show that the form counts, not the signature alone.
func TestSpoiltCheckpoint(t *testing.T) {
	signer := testSigner(t, "one")
	key := signer.PublicKey()
	want := Checkpoint{Head: Head{Size: 1204, Hash: sha256.Sum256([]byte("row"))}, Time: testTime}
	note := signer.Sign(want)
	got, err := key.Open(note)
	must(t, err)
	if got != want {
		t.Fatalf("got %+v", got)
	}
	text, signature, _ := strings.Cut(string(note), "\n\n")
	signed := func(old, new string) []byte {
		changed := strings.Replace(text+"\n", old, new, 1)
		if changed == text+"\n" {
			t.Fatalf("%q is not in it", old)
		}
		return signNote(changed, key.Origin(), signer.key)
	}
	for _, bad := range []struct {
		name string
		note []byte
		want error
	}{
		{"empty", nil, ErrNote},
		{"no signature", []byte(text + "\n\n"), ErrSignature},
		{"text changed", []byte(strings.Replace(string(note), "1204", "1205", 1)), ErrSignature},
		{"signature changed", spoilSignature(note), ErrSignature},
		{"signed twice", append(bytes.Clone(note), signature...), ErrSignature},
		{"line without an em dash", append(bytes.Clone(note), "- a AAAAAAAA\n"...), ErrNote},
		{"no line end", bytes.TrimSuffix(note, []byte("\n")), ErrNote},
		{"too long", append(bytes.Clone(note), strings.Repeat(signaturePrefix+"witness AAAAAAAA\n", 1000)...), ErrNote},
		{"not UTF-8", bytes.Replace(note, []byte("1204"), []byte("12\xff4"), 1), ErrNote},
		{"signed by another", testSigner(t, "two").Sign(want), ErrSignature},
		{"signed, another origin", signed("sealboot-audit-", "sealboot-audit-0"), ErrNote},
		{"signed, leading zero", signed("1204", "01204"), ErrNote},
		{"signed, negative", signed("1204", "-1204"), ErrNote},
		{"signed, short hash", signed(base64.StdEncoding.EncodeToString(want.Hash[:]), "AAAA"), ErrNote},
		{"signed, another line", signed("time ", "more\ntime "), ErrNote},
		{"signed, no time", signed("time 2026-11-26T12:00:00Z\n", ""), ErrNote},
		{"signed, other time zone", signed("12:00:00Z", "12:00:00+00:00"), ErrNote},
		{"signed, broken seconds", signed("12:00:00Z", "12:00:00.5Z"), ErrNote},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if c, err := key.Open(bad.note); !errors.Is(err, bad.want) || c != (Checkpoint{}) {
				t.Errorf("got %v, want %v", err, bad.want)
			}
		})
	}
	witnessed := append(bytes.Clone(note), signaturePrefix+"witness.example AAAAAAAA\n"...)
	if _, err := key.Open(witnessed); err != nil {
		t.Errorf("another's signature beside ours: %v", err)
	}
}

// TestPublicKey spoils a public key's text.
func TestPublicKey(t *testing.T) {
	key := testSigner(t, "one").PublicKey()
	again, err := ParsePublicKey(key.String())
	must(t, err)
	if again.Origin() != key.Origin() || !again.key.Equal(key.key) {
		t.Fatal("another key came back")
	}
	other := testSigner(t, "two").PublicKey()
	for name, text := range map[string]string{
		"empty": "", "name alone": key.Origin(), "line end": key.String() + "\n", "other name": strings.Replace(key.String(), "audit-", "audit-0", 1),
		"other key": key.String()[:strings.LastIndex(key.String(), "+")] + other.String()[strings.LastIndex(other.String(), "+"):],
	} {
		if _, err := ParsePublicKey(text); !errors.Is(err, ErrPublicKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewSigner(make([]byte, 31)); err == nil {
		t.Error("a short seed was taken")
	}
}

// TestNoteOfAnother opens and makes a note as golang.org/x/mod v0.43.0 has it. It was made by its sumdb/note: GenerateKey
// with SHA-256("sealboot audit test seed") as randomness and the name "sealboot-audit-test", then Sign.
func TestNoteOfAnother(t *testing.T) {
	const name = "sealboot-audit-test"
	const note = "If you think cryptography is the answer,\n\nask again.\n\n— sealboot-audit-test JoJaLgfNEWmAfvX3IdAjmj6KcXOIecAHEznvWAh9v/Imtwa+twj7Nmz51loPGau0U9gikoREahSEh/5ylrvZw1rLHgI=\n"
	const public = "sealboot-audit-test+26825a2e+AWEvIjsPlvtX+E0g+Fg8ggi7BEWX6qJLh3qM89n68JGT"
	seed := sha256.Sum256([]byte("sealboot audit test seed"))
	private := ed25519.NewKeyFromSeed(seed[:])
	key := private.Public().(ed25519.PublicKey)
	if want := name + "+" + hex.EncodeToString(keyHash(name, key)) + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, key...)); want != public {
		t.Errorf("public key %s", want)
	}
	text, err := openNote([]byte(note), name, key)
	must(t, err)
	if again := signNote(text, name, private); string(again) != note {
		t.Errorf("%q", again)
	}
}

// FuzzVerify reads hostile exports. What holds must be written again with the same bytes.
func FuzzVerify(f *testing.F) {
	signer := testSigner(f, "one")
	key := signer.PublicKey()
	rows, notes := testLog(f, signer, 4)
	good := export(f, rows, notes)
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"seq":2`), []byte(`"seq":3`), 1))
	f.Add([]byte(`{"checkpoint":"\n\n"}` + "\n"))
	var b bytes.Buffer
	must(f, NewWriter(&b).Checkpoint(notes[3]))
	f.Add(append(b.Bytes(), export(f, rows[3:], notes)...))
	f.Fuzz(func(t *testing.T, text []byte) {
		var rows int64
		s, err := key.Verify(bytes.NewReader(text), nil, func(Row) error { rows++; return nil })
		if err != nil {
			if s != (Summary{}) {
				t.Fatal("a result beside an error")
			}
			return
		}
		if s.Rows != rows || s.Last.Size != s.First.Size+rows {
			t.Fatalf("%+v of %d rows", s, rows)
		}
		var again bytes.Buffer
		w := NewWriter(&again)
		for line := range bytes.Lines(text) {
			row, note, err := parseLine(bytes.TrimSuffix(line, []byte("\n")))
			must(t, err)
			if note != nil {
				must(t, w.Checkpoint(note))
			} else {
				must(t, w.Row(row))
			}
		}
		if !bytes.Equal(again.Bytes(), text) {
			t.Fatal("it is written otherwise")
		}
	})
}

// FuzzOpen reads hostile checkpoints.
func FuzzOpen(f *testing.F) {
	signer := testSigner(f, "one")
	f.Add(signer.Sign(Checkpoint{Head: Head{Size: 1}, Time: testTime}))
	f.Add([]byte("a\n\n\u2014 a AAAAAAAA\n"))
	f.Fuzz(func(t *testing.T, note []byte) {
		c, err := signer.PublicKey().Open(note)
		if err != nil {
			return
		}
		if text, _, _ := bytes.Cut(signer.Sign(c), []byte("\n\n")); !bytes.HasPrefix(note, text) {
			t.Fatal("it is written otherwise")
		}
	})
}
