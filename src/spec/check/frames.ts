/*
 * Frames of stacks: their text as programs send it, and as people read it.
 */

export interface Frame {
  readonly function: string
  /** Source file and line; both undefined: unknown. */
  readonly file?: string
  readonly line?: number
  /** The program or library that contains the frame. */
  readonly object?: string
}

/**
 * A frame of a C program, `FILE+0xOFFSET SYMBOL`. A frame of JavaScript may contain `+0x1` too, in the name of a file,
 * but no space after it.
 */
export const NATIVE_FRAME = /^(.+)\+(0x[0-9a-f]+)(?: (\S*))?$/

/**
 * A frame of V8, `at function (file:line:column)`, or of Python, `function (file:line)`. Code outside of functions has
 * only `at file:line:column`, and `at async file:line:column` after an `await`. Parts: function, scheme, file, line.
 */
export const V8_FRAME = /^(?:at )?(?:(.*?) \(|async )?(file:\/\/)?(.+?):(\d+)(?::\d+)?\)?$/

/**
 * The verbs libraries, whose internal functions do not help the author of a program: providers with functions of their
 * own have another name. With the symbol of a native frame.
 */
export const VERBS_LIBRARIES =
  /\/(?:libibverbs|librdmacm|lib\w+-rdmav\d+|lib(?:mlx[45]|efa|hns|mana))\.so\S*(?: (\w*))?/

/**
 * Functions of a sanitizer's runtime, also as symbols: those before the C library's (`__interceptor_ioctl`) are between
 * a library, or the program, and what it calls.
 */
const SANITIZER_FUNCTION = /^(?:_+interceptor_|__(?:sanitizer|[alt]san)::|_ZN?\d+__(?:sanitizer|[alt]san))/
const SANITIZER = /\/lib(?:asan|lsan|tsan|ubsan)\.so|\/libclang_rt\./
const isOfSanitizer = ({ function: name, object = '' }: Frame): boolean =>
  SANITIZER_FUNCTION.test(name) || SANITIZER.test(object)

/** A shared library, by the name of its file. */
export const LIBRARY = /\.so(?:\.|$)/

/**
 * What calls the tests of a program: by function, as demangled or as a symbol, by source file or by library. Tests
 * themselves have other names (`Suite_Name_Test::TestBody`, `CATCH2_INTERNAL_TEST_0`, `DOCTEST_ANON_FUNC_2`).
 */
const testRunners: readonly { readonly [K in 'function' | 'file' | 'object']?: RegExp }[] = [
  // GoogleTest
  {
    function:
      /^(?:[\w:]+ )?(?:RUN_ALL_TESTS|_Z13RUN_ALL_TESTS|testing::(?:internal|Test|TestInfo|TestSuite|TestCase|UnitTest)::|_ZNK?7testing(?:8internal|4Test|8TestInfo|9TestSuite|8TestCase|8UnitTest))/,
    object: /\/libg(?:test|mock)(?:_main)?\.so/,
  },
  { function: /^(?:[\w:]+ )?(?:Catch::|_ZNK?5Catch)/, object: /\/libCatch2(?:Main)?\.so/ },
  { function: /^(?:[\w:]+ )?(?:doctest::|_ZNK?7doctest)/ },
  // pytest, and unittest of Python
  { file: /(?:^|\/)(?:_pytest|pluggy|python3[\d.]*\/unittest)\// },
]
const isOfTestRunner = (frame: Frame): boolean =>
  testRunners.some(row => (['function', 'file', 'object'] as const).some(part => row[part]?.test(frame[part] ?? '')))

/**
 * Removes frames that do not help: the callers of main, what calls tests, those of sanitizers, and the innermost
 * frames, in verbs libraries. Of the latter it keeps the outermost with a name: the function that the program has
 * called.
 */
export const trimFrames = <F extends Frame>(all: readonly F[]): readonly F[] => {
  const frames = all.filter(frame => !isOfSanitizer(frame))
  const first = frames.findIndex(({ object }) => object === undefined || !VERBS_LIBRARIES.test(object))
  const inner = (first < 0 ? frames : frames.slice(0, first)).findLast(({ function: name }) => name !== '')
  const outer = first < 0 ? [] : frames.slice(first)
  const main = outer.findIndex(({ function: name }) => name === 'main')
  const called = main < 0 ? outer : outer.slice(0, main + 1)
  const own = called.filter(frame => !isOfTestRunner(frame))
  return [...(inner === undefined ? [] : [inner]), ...(own.length > 0 ? own : called)]
}

/** `function at file:line`, or `function (object)`. */
export const frameText = ({ function: name, file, line, object }: Frame): string => {
  const functionName = name || '??'
  if (file !== undefined) return `${functionName} at ${file}:${line}`
  return object === undefined ? functionName : `${functionName} (${object})`
}

/** The innermost frame in a file of the program, else in a file, else the innermost. */
export const ownFrame = <F extends Frame>(frames: readonly F[]): F | undefined =>
  frames.find(({ file }) => file !== undefined && !file.startsWith('/usr/')) ??
  frames.find(({ file }) => file !== undefined) ??
  frames[0]

/** `function (file:line)`: a frame within a line. */
export const callerText = ({ function: name, file, line }: Frame): string =>
  `${name || '??'}${file === undefined ? '' : ` (${file}:${line})`}`
