package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/sealboot/sealboot/sev"
)

// maxObject bounds the file of a small object, in base64 with line ends.
const maxObject = 64 << 10

// ReadObject reads an object of one of the sizes, in bytes or in base64. A caller that reads a key wipes it.
func ReadObject(name, object string, sizes ...int) ([]byte, error) {
	data, err := ReadBounded(name, maxObject)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	raw, err := sev.DecodeFile(object, data, sizes...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return raw, nil
}

// ReadObjectArg takes what is no secret: the object itself in base64, or a file with it.
func ReadObjectArg(flag, value, object string, sizes ...int) ([]byte, error) {
	if raw, err := sev.DecodeFile(object, []byte(value), sizes...); err == nil && len(raw) != len(value) {
		return raw, nil
	}
	raw, err := ReadObject(value, object, sizes...)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return nil, Usagef("--%s %q is neither %s in base64 nor a file", flag, value, object)
	}
	return raw, err
}

// ReadMeasurement takes --measurement.
func ReadMeasurement(value string) (sev.Measurement, error) {
	raw, err := ReadObjectArg("measurement", value, "a launch measurement", sev.MeasurementSize)
	if err != nil {
		return sev.Measurement{}, err
	}
	return sev.ParseMeasurement(raw)
}
