/*
 * The C libraries that users need, as targets of compile.mjs: the preload libraries of programs, and the small library
 * that Node loads.
 */
import { sep } from 'node:path'
import { inRoot } from './common.mjs'
import { C_FLAGS, sourcesIn, VERBS } from './compile.mjs'

const SHARED = ['-shared', '-fPIC', '-fvisibility=hidden']

/** True for sources of shim/ that belong to a separate library. */
const isOwnLibrary = path => ['waits', 'frees', 'host'].some(name => path.startsWith(inRoot('shim', name) + sep))

export const nativeTargets = () => [
  {
    output: 'native/libuserdma_native.so',
    sources: sourcesIn('native'),
    flags: [...C_FLAGS, ...SHARED],
    without: 'packets are checked with zlib, which is slower, and memory that never answers keeps the daemon waiting',
  },
  {
    output: 'native/libuserdma_shim.so',
    sources: sourcesIn('shim').filter(path => !isOwnLibrary(path)),
    flags: [...C_FLAGS, ...SHARED],
    libraries: ['-ldl', '-lpthread'],
    needs: VERBS,
    without: 'only programs in TypeScript can use the device',
  },
  {
    output: 'native/libuserdma_waits.so',
    sources: sourcesIn('shim/waits'),
    flags: [...C_FLAGS, ...SHARED],
    libraries: ['-ldl', '-lpthread'],
    without: '`userdma check --races` does not run',
  },
  {
    output: 'native/libuserdma_frees.so',
    sources: sourcesIn('shim/frees'),
    flags: [...C_FLAGS, ...SHARED],
    libraries: ['-ldl'],
    without: '`userdma check` does not run',
  },
  {
    output: 'native/libuserdma_host.so',
    sources: [...sourcesIn('shim/host'), ...sourcesIn('shim/recorder')],
    flags: [...C_FLAGS, ...SHARED],
    libraries: ['-ldl', '-lpthread'],
    needs: VERBS,
    without: "`--host` does not run: programs on the machine's devices are not observed",
  },
]
