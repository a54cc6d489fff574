// Package at speaks AT commands with a modem over any io.ReadWriteCloser: a
// UART, a pty, a test script. It knows the line discipline of 3GPP TS 27.007
// clause 4 and ITU-T V.250, and no module's own commands.
//
//	port  ->  reader goroutine: lexer (LINE, PROMPT, RAW n)
//	            |  echo, final result, response line: to the one command in flight
//	            |  everything else: unsolicited result code (URC)
//	            v
//	          dispatch goroutine: waiters first, then Options.URC, in order
//
// One command is in flight at a time. After a command that ran out of time the
// engine resynchronises before the next one, so that a late OK is never taken
// for the OK of another command.
package at
