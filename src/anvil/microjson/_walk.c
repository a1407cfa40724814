/* The functions of walk.py in C, for where they could be built: the same answers.
 *
 * The walk never calls back into Python: types are compared by address, keys as exact texts, so no code of a value's own
 * runs, nothing can change under the walk while the interpreter's lock is held, and borrowed references stay good. The
 * depth of the recursion is the caller's `room` (64). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

static int walk(PyObject *value, long room, Py_ssize_t *left)
{
    PyTypeObject *type = Py_TYPE(value);
    Py_ssize_t at = 0, size;

    if (--*left < 0)
        return 0;
    if (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBool_Type || value == Py_None)
        return 1;
    if (type == &PyDict_Type) {
        PyObject *key, *item;
        if (room <= 0)
            return 0;
        while (PyDict_Next(value, &at, &key, &item))
            if (!walk(item, room - 1, left))
                return 0;
        return 1;
    }
    if (type != &PyList_Type && type != &PyTuple_Type)
        return 0;
    if (room <= 0)
        return 0;
    size = PySequence_Fast_GET_SIZE(value);
    for (; at < size; at++)
        if (!walk(PySequence_Fast_GET_ITEM(value, at), room - 1, left))
            return 0;
    return 1;
}

/* Whether a function was given as many arguments as it takes, of which two beginning at `args` are numbers. */
static int arguments(Py_ssize_t given, Py_ssize_t wanted, PyObject *const *args, long *room, Py_ssize_t *most)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are needed, not %zd", wanted, given);
        return 0;
    }
    *room = PyLong_AsLong(args[0]);
    if (*room == -1 && PyErr_Occurred())
        return 0;
    *most = PyLong_AsSsize_t(args[1]);
    return *most != -1 || !PyErr_Occurred();
}

static PyObject *count_plain(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    long room;
    Py_ssize_t most, left;

    (void)module;
    if (!arguments(given, 3, args + 1, &room, &most))
        return NULL;
    left = most;
    return PyLong_FromSsize_t(walk(args[0], room, &left) ? most - left : 0);
}

static int is_text(PyObject *key, const char *text)
{
    return PyUnicode_CheckExact(key) && PyUnicode_CompareWithASCIIString(key, text) == 0;
}

/* The ID of a message, borrowed; NULL, without an exception, where it is none or its data is not plain. */
static PyObject *framed(PyObject *message, long room, Py_ssize_t most)
{
    PyObject *key, *item, *id = NULL, *data = NULL;
    Py_ssize_t at = 0;

    if (room <= 0 || !PyDict_CheckExact(message) || PyDict_GET_SIZE(message) != 2)
        return NULL;
    while (PyDict_Next(message, &at, &key, &item)) {
        if (is_text(key, "@ID"))
            id = item;
        else if (is_text(key, "data"))
            data = item;
    }
    return id && data && PyLong_CheckExact(id) && walk(data, room - 1, &most) ? id : NULL;
}

static PyObject *frame_id(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    PyObject *id;
    Py_ssize_t most;
    long room;

    (void)module;
    if (!arguments(given, 3, args + 1, &room, &most))
        return NULL;
    id = framed(args[0], room, most);
    if (id == NULL)
        return PyLong_FromLong(0);
    Py_INCREF(id);
    return id;
}

static int is_ascii(PyObject *bytes)
{
    const char *at = PyBytes_AS_STRING(bytes), *end = at + PyBytes_GET_SIZE(bytes);
    unsigned char seen = 0;

    while (at < end)
        seen |= (unsigned char)*at++;
    return seen < 0x80;
}

static PyObject *write_message(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    PyObject *id, *written, *words[3];
    Py_ssize_t most;
    long room;
    int known;

    (void)module;
    if (!arguments(given, 6, args + 1, &room, &most))
        return NULL;
    id = framed(args[0], room, most);
    if (id == NULL)
        Py_RETURN_NONE;
    known = PySequence_Contains(args[3], id);
    if (known < 0)
        return NULL;
    if (!known)
        Py_RETURN_NONE;
    words[0] = args[0];
    words[1] = Py_None;
    words[2] = args[5];
    written = PyObject_Vectorcall(args[4], words, 3, NULL);
    if (written == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    if (PyBytes_CheckExact(written) && PyBytes_GET_SIZE(written) <= most && is_ascii(written))
        return written;
    Py_DECREF(written);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"count_plain", (PyCFunction)(void (*)(void))count_plain, METH_FASTCALL, NULL},
    {"frame_id", (PyCFunction)(void (*)(void))frame_id, METH_FASTCALL, NULL},
    {"write_message", (PyCFunction)(void (*)(void))write_message, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "anvil.microjson._walk", NULL, 0, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__walk(void)
{
    return PyModuleDef_Init(&definition);
}
