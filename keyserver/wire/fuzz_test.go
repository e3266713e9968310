package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"testing"
)

// fuzz decodes; what decodes encodes to the same message again, and encoding/json agrees on its values.
func fuzz[M interface{ Encode() ([]byte, error) }](f *testing.F, good M, decode func(io.Reader) (M, error)) {
	body := encode(f, good)
	for _, seed := range []string{body, body[:len(body)/2], "{}", "[]", "", `{"image":"a","image":"b"}`, " " + body + "\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(bytes.NewReader(data))
		if err != nil {
			if !reflect.ValueOf(m).IsZero() {
				t.Fatal("a message came with the error")
			}
			return
		}
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(bytes.NewReader(text))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v became %+v: %v", m, again, err)
		}
		var theirs, ours map[string]any
		if err := json.Unmarshal(data, &theirs); err != nil {
			t.Fatalf("taken, but encoding/json says %v", err)
		}
		if err := json.Unmarshal(text, &ours); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(theirs, ours) {
			t.Fatalf("%v became %v", theirs, ours)
		}
	})
}

func FuzzSessionRequest(f *testing.F) { fuzz(f, goodRequest, DecodeSessionRequest) }

func FuzzSession(f *testing.F) { fuzz(f, goodSession, DecodeSession) }

func FuzzMeasurementRequest(f *testing.F) { fuzz(f, goodMeasurement, DecodeMeasurementRequest) }

func FuzzPacket(f *testing.F) { fuzz(f, goodPacket, DecodePacket) }

func FuzzChallengeRequest(f *testing.F) { fuzz(f, goodAsk, DecodeChallengeRequest) }

func FuzzChallenge(f *testing.F) { fuzz(f, goodChallenge, DecodeChallenge) }

func FuzzReportRequest(f *testing.F) { fuzz(f, goodReport, DecodeReportRequest) }

func FuzzSealedSecret(f *testing.F) { fuzz(f, goodSealed, DecodeSealedSecret) }

func FuzzConfirmationRequest(f *testing.F) {
	fuzz(f, goodConfirm, DecodeConfirmationRequest)
}

func FuzzProblem(f *testing.F) {
	fuzz(f, goodProblem, func(r io.Reader) (Problem, error) { return DecodeProblem(r, Refused.Status()) })
}
