package at

type tokenKind byte

const (
	tokenLine tokenKind = iota
	tokenPrompt
	tokenRaw
)

// token is one piece of what the module said.
type token struct {
	kind tokenKind
	// text is the line without its end, or the raw bytes.
	text string
	// sep is what stood between the line before and this one: line ends only,
	// at most maxSep bytes of them.
	sep string
	// cut says that the line was longer than the bound, or the raw block was
	// larger; text has the beginning.
	cut bool
}

const (
	maxSep = 16
	maxRaw = 64 << 10
	// maxHead is how far into a line raw bytes may begin.
	maxHead = 512
)

// lexer cuts the byte stream of a module into tokens. How the stream is cut
// into writes makes no difference to the tokens. CR, LF and CR LF end a line;
// NUL bytes outside of raw blocks are dropped, since no firmware means them.
//
// Its memory is bounded by max for lines and by maxRaw for raw blocks.
type lexer struct {
	max  int
	emit func(token)
	// inline is the number of raw bytes that follow this beginning of a line,
	// which ends with a quotation mark; nil if no firmware here does that.
	inline func(head string) int

	buf      []byte
	sep      []byte
	cr       bool // the last byte was a CR
	crlf     bool // an LF has followed one
	skip     bool // the line was cut; drop the rest of it
	prompt   bool // a "> " at the start of a line is a prompt
	space    bool // drop the space that follows a prompt
	rawNext  int  // a raw block of so many bytes follows the line end
	raw      int  // bytes of the raw block that are still to come
	rawSpill bool // the raw block is larger than maxRaw
	within   int  // raw bytes of the current line that are still to come
	extra    int  // raw bytes of the current line: they are not bounded by max
}

// expectPrompt says whether a `>` at the start of a line is a prompt now.
func (l *lexer) expectPrompt(on bool) { l.prompt = on }

// expectRaw makes the n bytes after the end of the current line a raw block. It
// may be called only while emit runs for that line.
func (l *lexer) expectRaw(n int) {
	if n > 0 {
		l.rawNext = n
	}
}

// write takes the next bytes of the stream.
func (l *lexer) write(p []byte) {
	for len(p) > 0 {
		if l.raw > 0 {
			p = l.takeRaw(p)
			continue
		}
		if l.within > 0 {
			n := min(l.within, len(p))
			l.buf = append(l.buf, p[:n]...)
			l.within -= n
			p = p[n:]
			continue
		}
		c := p[0]
		if l.rawNext > 0 && !(l.cr && c == '\n') {
			l.startRaw()
			continue
		}
		p = p[1:]
		l.take(c)
	}
}

func (l *lexer) take(c byte) {
	wasCR := l.cr
	l.cr = c == '\r'
	switch {
	case c == '\n' && wasCR:
		l.crlf = true
		l.addSep(c)
		if l.rawNext > 0 {
			l.startRaw()
		}
	case c == '\r' || c == '\n':
		l.space = false
		l.endLine()
		l.addSep(c)
		if c == '\n' && l.rawNext > 0 {
			l.startRaw()
		}
	case c == 0:
		l.cr = wasCR
	case l.skip:
	case l.space && c == ' ':
		l.space = false
	case l.prompt && c == '>' && len(l.buf) == 0:
		l.emitPrompt()
	default:
		l.space = false
		l.buf = append(l.buf, c)
		if c == '"' && l.inline != nil && l.extra == 0 && len(l.buf) <= maxHead {
			if n := l.inline(string(l.buf)); n > 0 && n <= maxRaw {
				l.within, l.extra = n, n
			}
		}
		if len(l.buf) >= l.max+l.extra {
			l.emitLine(true)
			l.skip = true
		}
	}
}

// idle says that nothing has come for a while. A prompt that hangs on the end
// of a line without a line end between them is found here and nowhere else,
// because a line may have "> " in its middle.
func (l *lexer) idle() {
	if !l.prompt || l.skip || l.raw > 0 {
		return
	}
	n := len(l.buf)
	for n > 0 && l.buf[n-1] == ' ' {
		n--
	}
	if n == 0 || l.buf[n-1] != '>' {
		return
	}
	l.buf = l.buf[:n-1]
	l.endLine()
	l.emitPrompt()
}

func (l *lexer) emitPrompt() {
	l.space = true
	l.sep = l.sep[:0]
	l.emit(token{kind: tokenPrompt, text: ">"})
}

func (l *lexer) endLine() {
	if l.skip {
		l.skip = false
		return
	}
	if len(l.buf) > 0 {
		l.emitLine(false)
	}
}

func (l *lexer) emitLine(cut bool) {
	t := token{kind: tokenLine, text: string(l.buf), sep: string(l.sep), cut: cut}
	l.buf, l.sep, l.extra = l.buf[:0], l.sep[:0], 0
	l.emit(t)
}

func (l *lexer) addSep(c byte) {
	if len(l.sep) < maxSep {
		l.sep = append(l.sep, c)
	}
}

func (l *lexer) startRaw() {
	l.raw, l.rawNext = l.rawNext, 0
	l.rawSpill = l.raw > maxRaw
	l.cr = false
	l.buf, l.sep = l.buf[:0], l.sep[:0]
}

func (l *lexer) takeRaw(p []byte) []byte {
	n := min(l.raw, len(p))
	keep := min(n, maxRaw-len(l.buf))
	l.buf = append(l.buf, p[:keep]...)
	l.raw -= n
	if l.raw == 0 {
		t := token{kind: tokenRaw, text: string(l.buf), cut: l.rawSpill}
		l.buf = l.buf[:0]
		l.emit(t)
	}
	return p[n:]
}

// dropRaw ends a raw block before its time.
func (l *lexer) dropRaw() {
	if l.within > 0 {
		l.within = 0
		l.emitLine(true)
	}
	if l.raw > 0 || l.rawNext > 0 {
		l.raw, l.rawNext, l.buf = 0, 0, l.buf[:0]
	}
}
