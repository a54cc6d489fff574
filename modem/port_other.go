//go:build !linux

package modem

import "errors"

func setFlowControl(int, bool) error { return errors.New("not supported on this system") }

func keepFromPrograms(int) error { return nil }
