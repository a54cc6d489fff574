package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/queues"
)

func newQueueExportCommand(f *queueFlags) *cobra.Command {
	var out string
	var keep bool
	cmd := &cobra.Command{
		Use:   "export NAME -o FILE",
		Short: "Carry a backlog away in a file",
		Long: `Write all messages of a queue into a file, one JSON object a line, and take them
out of the queue, counted as exported.

They leave the queue only when the file is written, synced and in its place: a
crash at any point loses nothing, but may leave messages both in the file and in
the queue. Until then nothing of the queue is sent. What was being sent when the
export began is left to its bridge and is not in the file; messages that were
sent before without an answer may be in the file and at the far broker.

With --keep they stay in the queue, and the queue goes on meanwhile.`,
		Example: `  holdfast queue export cloud -o /media/stick/backlog.ndjson -c gateway.toml
  holdfast queue export cloud -o - --keep -c gateway.toml | jq .topic`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case out == "":
				return usageError{errors.New("where to? Write -o FILE, or -o - --keep for standard output")}
			case out == "-" && !keep:
				return usageError{errors.New("nobody can say whether standard output is safe on a disk: write -o FILE, or add --keep to leave the messages in the queue")}
			}
			return f.with(cmd, func(ctx context.Context, c *queues.Client) error {
				return export(ctx, cmd, c, args[0], out, keep)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "the file; - is standard output")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the messages in the queue")
	return cmd
}

func export(ctx context.Context, cmd *cobra.Command, c *queues.Client, name, path string, keep bool) error {
	var w io.Writer
	var safe func() error
	if path == "-" {
		out := bufio.NewWriterSize(cmd.OutOrStdout(), 256<<10)
		w, safe = out, out.Flush
	} else {
		file, err := newSafeFile(path)
		if err != nil {
			return err
		}
		defer file.giveUp() // nothing, if it is in its place
		w, safe = file, file.finish
	}
	stderr := cmd.ErrOrStderr()
	p := newProgress(stderr, "exported", 0)
	var n int64
	end, err := c.Export(ctx, name, keep, func(e queues.Event) { p.total = int64(e.Messages) },
		func(line []byte) error {
			n++
			p.at(n)
			_, err := w.Write(line)
			return err
		},
		func(queues.Event) error {
			p.end(n)
			return safe()
		})
	if err != nil {
		return err
	}
	if end.Unreadable > 0 {
		fmt.Fprintf(stderr, "warning: %s cannot be read from the disk; they are not in the file, and will be counted as lost\n", count(int(end.Unreadable), "message"))
	}
	if end.InFlight > 0 {
		fmt.Fprintf(stderr, "%s being sent when the export began, and not in the file\n", count(int(end.InFlight), "message"))
	}
	switch {
	case keep:
		fmt.Fprintf(stderr, "copied %s; all are still in the queue\n", count(int(n), "message"))
	case int64(end.Messages) != n:
		fmt.Fprintf(stderr, "exported %s to %s; %d of them had left the queue by another way meanwhile\n", count(int(n), "message"), path, n-int64(end.Messages))
	default:
		fmt.Fprintf(stderr, "exported %s to %s; they have left the queue\n", count(int(n), "message"), path)
	}
	return nil
}

func newQueueImportCommand(f *queueFlags) *cobra.Command {
	var skipBad bool
	var from int
	cmd := &cobra.Command{
		Use:   "import NAME FILE",
		Short: "Put exported messages back into a queue",
		Long: `Put the messages of an exported file at the end of a queue, in their order and
lanes, counted as imported to their routes.

A file is read strictly, and as a whole before the first message is taken: if a
line is bad, none is taken, unless --skip-bad is given. Standard input (-) is
taken up to the first bad line.

Nothing is dropped to make room: when the queue is full the import stops and says
how far it came. What it has reported is on disk. A file that is imported twice is
in the queue twice: go on with --from-line after an import that was cut off.`,
		Example: `  holdfast queue import cloud /media/stick/backlog.ndjson -c gateway.toml`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from < 1 {
				return usageError{errors.New("--from-line: lines are counted from 1")}
			}
			return importFile(cmd, f, args[0], args[1], from, skipBad)
		},
	}
	cmd.Flags().BoolVar(&skipBad, "skip-bad", false, "leave out lines that are no messages")
	cmd.Flags().IntVar(&from, "from-line", 1, "begin with this line of the file")
	return cmd
}

func importFile(cmd *cobra.Command, f *queueFlags, name, path string, from int, skipBad bool) error {
	in, total := cmd.InOrStdin(), int64(0)
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return usageError{err}
		}
		defer file.Close()
		if total, err = checkLines(cmd.Context(), cmd.ErrOrStderr(), file, path, from, skipBad); err != nil {
			return err
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		in = file
	}
	lines := bufio.NewReaderSize(in, 64<<10)
	if err := skipLines(lines, from-1); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return f.with(cmd, func(ctx context.Context, c *queues.Client) error {
		stderr := cmd.ErrOrStderr()
		p := newProgress(stderr, "imported", total)
		e, err := c.Import(ctx, name, skipBad, lines, func(e queues.Event) { p.at(int64(e.Messages)) })
		p.end(int64(e.Messages))
		line := from - 1 + e.Line
		tellBad(stderr, path, e, from-1)
		if err != nil {
			again := fmt.Sprintf("holdfast queue import %s %s --from-line %d", name, path, line+1)
			return fmt.Errorf("%w\n%s on disk, up to line %d; when it is put right, go on with: %s", err, count(int(e.Messages), "message"), line, again)
		}
		fmt.Fprintf(stderr, "imported %s into %s\n", count(int(e.Messages), "message"), name)
		return nil
	})
}

// checkLines reads a whole file before anything of it is taken.
func checkLines(ctx context.Context, stderr io.Writer, file io.Reader, path string, from int, skipBad bool) (messages int64, err error) {
	in := bufio.NewReaderSize(file, 64<<10)
	if err := skipLines(in, from-1); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	var e queues.Event
	r := queues.NewReader(in)
	for ctx.Err() == nil {
		_, err := r.Next()
		var bad *queues.BadLineError
		switch {
		case err == nil:
			messages++
		case errors.As(err, &bad):
			e.Note(bad)
		case err == io.EOF:
			if e.BadLines == 0 || skipBad {
				return messages, nil
			}
			tellBad(stderr, path, e, from-1)
			return 0, usageError{fmt.Errorf("%s of %s no messages, and nothing was imported: correct them, or leave them out with --skip-bad", are(e.BadLines, "line"), path)}
		default:
			return 0, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return 0, ctx.Err()
}

// are is a number of things with its verb.
func are(n int, what string) string {
	if n == 1 {
		return count(n, what) + " is"
	}
	return count(n, what) + " are"
}

func tellBad(w io.Writer, path string, e queues.Event, before int) {
	for _, b := range e.Bad {
		fmt.Fprintf(w, "%s:%d: %s\n", path, before+b.Line, b.Error)
	}
	if more := e.BadLines - len(e.Bad); more > 0 {
		fmt.Fprintf(w, "and %s more\n", count(more, "bad line"))
	}
}

// skipLines passes n lines, or all if there are fewer.
func skipLines(r *bufio.Reader, n int) error {
	for n > 0 {
		_, err := r.ReadSlice('\n')
		switch err {
		case nil:
			n--
		case bufio.ErrBufferFull:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
	return nil
}
