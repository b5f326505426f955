/*
 * Frames of Python programs in stacks: function, file and line of Python code. Native frames show only the
 * interpreter's evaluation loop. The interpreter's functions are found at run time, and exist since Python 3.10. Only a
 * thread with the GIL calls them, except is_initialized and holds_gil.
 */
#define _GNU_SOURCE
#include "recorder.h"

#include <stdio.h>
#include <string.h>

static struct {
    int (*is_initialized)(void);
    int (*holds_gil)(void);
    void *(*thread)(void);
    void *(*frame)(void *thread);
    void *(*back)(void *frame);
    void *(*code)(void *frame);
    int (*line)(void *frame);
    void *(*attribute)(void *object, const char *name);
    const char *(*utf8)(void *string);
    void (*release)(void *object);
    void (*clear_error)(void);
    void (*fetch_error)(void **type, void **value, void **trace);
    void (*restore_error)(void *type, void *value, void *trace);
    int (*disable_collection)(void);
    int (*enable_collection)(void);
} api;

/* The interpreter's load address, by which its native frames are recognized; NULL: not found. */
static const void *base;

/* Looks for an interpreter in the program. */
static void detect(void)
{
    const struct {
        void *function;
        const char *name;
    } needed[] = {
        {&api.is_initialized, "Py_IsInitialized"},     {&api.holds_gil, "PyGILState_Check"},
        {&api.thread, "PyGILState_GetThisThreadState"}, {&api.frame, "PyThreadState_GetFrame"},
        {&api.back, "PyFrame_GetBack"},                {&api.code, "PyFrame_GetCode"},
        {&api.line, "PyFrame_GetLineNumber"},          {&api.attribute, "PyObject_GetAttrString"},
        {&api.utf8, "PyUnicode_AsUTF8"},               {&api.release, "Py_DecRef"},
        {&api.clear_error, "PyErr_Clear"},             {&api.fetch_error, "PyErr_Fetch"},
        {&api.restore_error, "PyErr_Restore"},         {&api.disable_collection, "PyGC_Disable"},
        {&api.enable_collection, "PyGC_Enable"},
    };
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        void *found = dlsym(RTLD_DEFAULT, needed[i].name);
        if (!found)
            return;
        memcpy(needed[i].function, &found, sizeof found);
    }
    Dl_info info;
    void *function;
    memcpy(&function, &api.frame, sizeof function);
    /* Stored last: from then on other threads use the functions. */
    if (dladdr(function, &info))
        __atomic_store_n(&base, info.dli_fbase, __ATOMIC_RELEASE);
}

const void *python_base(void)
{
    return __atomic_load_n(&base, __ATOMIC_ACQUIRE);
}

unsigned python_take(struct python_frame *frames, unsigned max_frames)
{
    static bool has_looked;
    if (!__atomic_load_n(&has_looked, __ATOMIC_RELAXED) && !__atomic_exchange_n(&has_looked, true, __ATOMIC_RELAXED))
        detect();
    if (!python_base() || !api.is_initialized() || !api.holds_gil())
        return 0;
    void *thread = api.thread();
    if (!thread)
        return 0;
    /* Frames are objects. A new object may start a collection, which may run code of the program. */
    const int was_collecting = api.disable_collection();
    unsigned depth = 0;
    for (void *frame = api.frame(thread); frame;) {
        if (depth < max_frames) {
            /* A running frame keeps its code object alive. */
            void *code = api.code(frame);
            frames[depth++] = (struct python_frame){.code = code, .line = api.line(frame)};
            api.release(code);
        }
        void *caller = depth < max_frames ? api.back(frame) : NULL;
        api.release(frame);
        frame = caller;
    }
    if (was_collecting)
        api.enable_collection();
    return depth;
}

/* Copies a string attribute of a code object; "?" if there is none. */
static void copy_attribute(void *code, const char *name, char *text, size_t size)
{
    void *string = api.attribute(code, name);
    const char *utf8 = string ? api.utf8(string) : NULL;
    if (!utf8)
        api.clear_error();
    snprintf(text, size, "%s", utf8 ? utf8 : "?");
    if (string)
        api.release(string);
}

int python_write(const struct python_frame *frame, char *text, size_t size)
{
    char name[128], file[512];
    void *type, *value, *trace;
    /* Saves a pending exception of the program: the calls below may set another. */
    api.fetch_error(&type, &value, &trace);
    copy_attribute(frame->code, "co_name", name, sizeof name);
    copy_attribute(frame->code, "co_filename", file, sizeof file);
    api.restore_error(type, value, trace);
    return snprintf(text, size, "%s (%s:%d)\n", name, file, frame->line);
}
