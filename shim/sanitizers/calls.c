/*
 * Calls of the C library by which a program tells its peers that they may use its memory, or hears that they have done
 * so: waits for children, and what reads and writes within the C library. read, write, send and their like are in
 * shim/files and shim/session.
 */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define HEARING(call)                                                                                                  \
    ({                                                                                                                 \
        const __typeof__(call) result_ = (call);                                                                       \
        sanitizers_hears();                                                                                            \
        result_;                                                                                                       \
    })

/* `parameters` and `arguments` in parentheses. */
#define HEARS(type, name, parameters, arguments)                                                                       \
    EXPORT type name parameters                                                                                        \
    {                                                                                                                  \
        return HEARING(NEXT(name) arguments);                                                                          \
    }
#define TELLS(type, name, parameters, arguments)                                                                       \
    EXPORT type name parameters                                                                                        \
    {                                                                                                                  \
        return TELLING(NEXT(name) arguments);                                                                          \
    }

/* ---- children and signals ---- */

HEARS(pid_t, wait, (int *status), (status))
HEARS(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options))
HEARS(pid_t, wait3, (int *status, int options, struct rusage *usage), (status, options, usage))
HEARS(pid_t, wait4, (pid_t pid, int *status, int options, struct rusage *usage), (pid, status, options, usage))
HEARS(int, waitid, (idtype_t type, id_t id, siginfo_t *information, int options), (type, id, information, options))
HEARS(int, sigwait, (const sigset_t *set, int *signal), (set, signal))
HEARS(int, sigwaitinfo, (const sigset_t *set, siginfo_t *information), (set, information))
TELLS(int, kill, (pid_t pid, int signal), (pid, signal))

/* ---- messages, and connections that come or end ---- */

HEARS(ssize_t, msgrcv, (int queue, void *message, size_t size, long type, int flags),
      (queue, message, size, type, flags))
TELLS(int, msgsnd, (int queue, const void *message, size_t size, int flags), (queue, message, size, flags))
TELLS(ssize_t, sendfile, (int out, int in, off_t *offset, size_t count), (out, in, offset, count))
HEARS(int, accept, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length))
HEARS(int, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags), (fd, address, length, flags))

/* ---- streams ---- */

HEARS(size_t, fread, (void *buffer, size_t size, size_t count, FILE *stream), (buffer, size, count, stream))
HEARS(char *, fgets, (char *line, int size, FILE *stream), (line, size, stream))
HEARS(ssize_t, getline, (char **line, size_t *size, FILE *stream), (line, size, stream))
HEARS(ssize_t, __getdelim, (char **line, size_t *size, int end, FILE *stream), (line, size, end, stream)) /* of an inlined getline */
HEARS(int, fgetc, (FILE *stream), (stream))
HEARS(int, getc, (FILE *stream), (stream))
HEARS(ssize_t, getdelim, (char **line, size_t *size, int end, FILE *stream), (line, size, end, stream))
TELLS(size_t, fwrite, (const void *buffer, size_t size, size_t count, FILE *stream), (buffer, size, count, stream))
TELLS(int, fputs, (const char *text, FILE *stream), (text, stream))
TELLS(int, fflush, (FILE *stream), (stream))

EXPORT int fprintf(FILE *stream, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int result = TELLING(vfprintf(stream, format, arguments));
    va_end(arguments);
    return result;
}

EXPORT int dprintf(int fd, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int result = TELLING(vdprintf(fd, format, arguments));
    va_end(arguments);
    return result;
}
