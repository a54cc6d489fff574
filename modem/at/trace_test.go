package at

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
)

type wire struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (w *wire) Read(p []byte) (int, error)  { return w.in.Read(p) }
func (w *wire) Write(p []byte) (int, error) { return w.out.Write(p) }
func (w *wire) Close() error                { return nil }

func TestTheTraceShowsTheWireWithoutSecrets(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	said := "\r\n+CSQ: 20,99\r\n\r\nOK\r\n\r\n+ECMTRECV: 0,0,\"cmd\",{\"in1\":\r\nSECRET2 rest\r\n}\r\n"
	w := &wire{in: bytes.NewReader([]byte(said))}
	tr := Trace(w, logger)
	for _, s := range []string{
		"AT+CSQ\r",
		"AT+CPIN=\"SECRET1\"\r",
		"AT+ECMTCONN=0,\"id, with comma\",\"user\",\"SECRET3\"\r",
		"AT+CGAUTH=1,2,\"u\",\"SECRET4\"\r",
		"AT+ECMTPUB=0,1,1,0,\"t\",\"SECRET5\"\r",
		"AT+ECMTCFG=\"will\",0,1,1,0,\"state\",\"SECRET6\"\r",
		"AT+P\r", "SECRET7\r",
		"AT+ECMTCONN=0,\"odd\"quote,\"u\",\"SECRET8\"\r",
	} {
		io.WriteString(tr, s)
	}
	io.Copy(io.Discard, tr)
	got := log.String()
	if strings.Contains(got, "SECRET") || strings.Contains(got, "in1") {
		t.Errorf("the trace shows a secret or a payload:\n%s", got)
	}
	for _, want := range []string{"AT+CSQ", "+CSQ: 20,99", "id, with comma", "AT+CPIN=<9 bytes>", "OK"} {
		if !strings.Contains(got, want) {
			t.Errorf("the trace does not show %q:\n%s", want, got)
		}
	}
	if w.out.Len() == 0 {
		t.Error("nothing was written through")
	}
}
