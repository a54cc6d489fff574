//go:build !linux || !(amd64 || arm64)

package badcard

import "errors"

func unable() (why string, kernel bool) {
	return "the library that serves it does not build for this processor", true
}

func serve(string) error { return errors.ErrUnsupported }
