package auditlog

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// MaxLine bounds a line of an export.
const MaxLine = 64 << 10

// ErrExport says that a text is no export of an audit, or not a whole one.
var ErrExport = errors.New("not an exported audit")

// Writer writes an export. An export begins with the first row, or with the checkpoint that the one before it ended with, and
// ends with a checkpoint of its last row.
type Writer struct {
	w io.Writer
}

// NewWriter writes to w, a line at a time.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

const (
	rowStart        = `{"seq":`
	rowHash         = `,"hash":"`
	rowEntry        = `","entry":`
	checkpointStart = `{"checkpoint":`
)

// Row writes a row.
func (w *Writer) Row(r Row) error {
	line := strconv.AppendInt([]byte(rowStart), r.Seq, 10)
	line = append(line, rowHash...)
	line = hex.AppendEncode(line, r.Hash[:])
	line = append(line, rowEntry...)
	line = append(line, r.Entry...)
	return w.line(append(line, "}\n"...))
}

// Checkpoint writes a signed note.
func (w *Writer) Checkpoint(note []byte) error {
	text, err := json.Marshal(string(note))
	if err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return w.line(append(append([]byte(checkpointStart), text...), "}\n"...))
}

func (w *Writer) line(line []byte) error {
	if len(line) > MaxLine {
		return fmt.Errorf("write export: line of %d bytes, more than %d", len(line), MaxLine)
	}
	if _, err := w.w.Write(line); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// Summary says what an export that holds holds.
type Summary struct {
	First, Last Checkpoint // First is zero if the export begins with the first row; Last signs the last row
	Rows        int64
	Checkpoints int
}

// Verify reads an export to its end and checks that it holds under the key: that each row's hash follows from the row before, that every
// checkpoint is signed and is that of the row before it, that the last row has one, and that the rows are those of the
// checkpoints that were kept elsewhere. A *ChainError tells of the first row that does not hold. Rows are given to each as they are
// read: they count for nothing before Verify has returned nil.
//
// Exports that follow each other, the second made from the first's last checkpoint on, may be read as one.
func (p PublicKey) Verify(r io.Reader, kept []Checkpoint, each func(Row) error) (Summary, error) {
	e := exported{key: p, kept: kept}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 4096), MaxLine)
	lines.Split(wholeLines)
	for number := 1; lines.Scan(); number++ {
		row, note, err := parseLine(lines.Bytes())
		switch {
		case err != nil:
		case note != nil:
			err = e.checkpoint(note)
		default:
			if err = e.row(row); err == nil {
				err = each(row)
			}
		}
		if err != nil {
			return Summary{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return Summary{}, fmt.Errorf("%w: a line of more than %d bytes", ErrExport, MaxLine)
	case err != nil:
		return Summary{}, fmt.Errorf("read export: %w", err)
	}
	if err := e.end(); err != nil {
		return Summary{}, err
	}
	return e.Summary, nil
}

// exported is an export on the way through Verify.
type exported struct {
	key  PublicKey
	kept []Checkpoint
	walk *Walk // nil before the first line
	Summary
}

func (e *exported) row(r Row) (err error) {
	if e.walk == nil {
		if e.walk, err = NewWalk(Head{}, e.kept); err != nil {
			return err
		}
	}
	e.Rows++
	return e.walk.Row(r)
}

func (e *exported) checkpoint(note []byte) error {
	c, err := e.key.Open(note)
	if err != nil {
		return err
	}
	if e.walk == nil {
		e.First = c
		if e.walk, err = NewWalk(c.Head, e.kept); err != nil {
			return err
		}
	}
	switch head := e.walk.Head(); {
	case c.Size != head.Size:
		return &ChainError{Seq: head.Size + 1, Problem: fmt.Sprintf("row is missing: what follows is the checkpoint of row %d", c.Size)}
	case !c.Hash.Equal(head.Hash):
		return &ChainError{Seq: c.Size, Problem: fmt.Sprintf("rows are not those that were signed at %s", stamp(c.Time))}
	}
	e.Last = c
	e.Checkpoints++
	return nil
}

func (e *exported) end() error {
	if e.Checkpoints == 0 {
		return fmt.Errorf("%w: there is no checkpoint in it, so nothing is signed", ErrExport)
	}
	if e.Last.Size != e.walk.Head().Size {
		return &ChainError{Seq: e.Last.Size + 1, Problem: "no checkpoint follows: the last rows are not signed"}
	}
	return e.walk.End()
}

// wholeLines splits after each line end, and refuses a last line without one.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, fmt.Errorf("%w: its last line was cut off", ErrExport)
	}
	return 0, nil, nil
}

// parseLine gives a row, or a note. What would not be written again with the same bytes is refused.
func parseLine(line []byte) (Row, []byte, error) {
	inner, ok := bytes.CutSuffix(line, []byte("}"))
	if !ok {
		return Row{}, nil, fmt.Errorf("%w: neither a row nor a checkpoint", ErrExport)
	}
	if text, ok := bytes.CutPrefix(inner, []byte(checkpointStart)); ok {
		var note string
		if err := json.Unmarshal(text, &note); err != nil {
			return Row{}, nil, fmt.Errorf("%w: checkpoint does not read", ErrExport)
		}
		if again, err := json.Marshal(note); err != nil || !bytes.Equal(again, text) {
			return Row{}, nil, fmt.Errorf("%w: checkpoint is not in its own form", ErrExport)
		}
		return Row{}, []byte(note), nil
	}
	rest, ok := bytes.CutPrefix(inner, []byte(rowStart))
	digits, rest, ok2 := bytes.Cut(rest, []byte(rowHash))
	hash, entry, ok3 := bytes.Cut(rest, []byte(rowEntry))
	if !ok || !ok2 || !ok3 {
		return Row{}, nil, fmt.Errorf("%w: neither a row nor a checkpoint", ErrExport)
	}
	seq, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || seq < 1 || strconv.FormatInt(seq, 10) != string(digits) {
		return Row{}, nil, fmt.Errorf("%w: a row's number does not read", ErrExport)
	}
	r := Row{Seq: seq, Entry: bytes.Clone(entry)}
	if len(hash) != hex.EncodedLen(len(r.Hash)) {
		return Row{}, nil, fmt.Errorf("%w: a row's hash does not read", ErrExport)
	}
	if _, err := hex.Decode(r.Hash[:], hash); err != nil || r.Hash.String() != string(hash) {
		return Row{}, nil, fmt.Errorf("%w: a row's hash does not read", ErrExport)
	}
	if len(entry) == 0 || entry[0] != '{' || !json.Valid(entry) {
		return Row{}, nil, fmt.Errorf("%w: a row's entry is no object", ErrExport)
	}
	return r, nil, nil
}
