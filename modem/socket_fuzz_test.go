package modem

import (
	"testing"

	"holdfast/modem/at"
)

// Whatever a module says of its sockets is taken or left, without harm.
func FuzzSocketLines(f *testing.F) {
	for _, s := range []string{
		"+ECSONMI: 0,5", `+ECSONMI: 0,2,"4142"`, "+ECSONMI: 0,1.2.3.4,80,2,4142", "+ECSOSTR: 0,7,1", "+ECSOCLI: 0,3",
		`0,"1.2.3.4",80,2,"4142",0`, `+QIURC: "recv",0,1500`, `+QIURC: "closed",0`, "+QISEND: 0,0,3", "+QIRD: 12",
		`+QIURC: "pdpdeact",1`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, c := range []socketCommands{&ecsoSockets{}, &qiSockets{}} {
			if _, ev, ok := c.urc(at.Line{Text: line}); ok && len(ev.pushed) > len(line) {
				t.Errorf("%s: %d bytes of %q", c.name(), len(ev.pushed), line)
			}
		}
		if isECSORF(line) {
			if p, _, err := parseECSORF(line); err == nil && len(p) > len(line) {
				t.Errorf("%d bytes of %q", len(p), line)
			}
		}
		if n := qiLength(line); n < 0 || n > 64<<10 {
			t.Errorf("%d bytes of %q", n, line)
		}
	})
}
