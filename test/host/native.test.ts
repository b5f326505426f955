import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { EBADF, SystemError } from '../../src/host/errno.ts'
import { check, hasNative, koffi, libcFunctions, orErrno } from '../../src/host/native.ts'
import { repoRoot } from '../paths.ts'

const sys = libcFunctions({
  close: 'int close(int fd)',
  getpid: 'int getpid()',
  strlen: 'uint64_t strlen(const char *s)',
})

test('functions of the C library take and return Numbers', () => {
  assert.equal(hasNative(), true)
  assert.equal(sys().getpid(), process.pid)
  assert.equal(sys().strlen('userdma'), 7)
  assert.equal(sys(), sys())
})

test('a failed call is -errno or a SystemError', () => {
  assert.equal(orErrno(sys().close(-1)), -EBADF)
  assert.equal(orErrno(3), 3)
  assert.throws(
    () => check('close', sys().close(-1), 'fd -1'),
    (error: unknown) =>
      error instanceof SystemError && error.code === 'EBADF' && error.message === 'close: EBADF: fd -1',
  )
})

test('the error for an unknown C function names the function', () => {
  assert.throws(() => libcFunctions({ userdmaNoSuch: 'int userdmaNoSuch()' })(), /userdmaNoSuch/)
})

test('koffi is loaded without its slow loader, and has the version of its package.json', () => {
  const { cache, resolve } = createRequire(import.meta.url)
  assert.equal(cache[resolve('koffi')], undefined)
  const { version } = JSON.parse(readFileSync(join(repoRoot, 'node_modules', 'koffi', 'package.json'), 'utf8'))
  assert.equal((koffi() as { readonly version?: string }).version, version)
})

test('native.ts can be imported without koffi, and the error of the first call names the package', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-native-'))
  t.after(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'host'))
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  for (const file of ['native.js', 'errno.js']) {
    copyFileSync(fileURLToPath(new URL(`../../src/host/${file}`, import.meta.url)), join(folder, 'host', file))
  }
  const withoutKoffi = (await import(join(folder, 'host', 'native.js'))) as typeof import('../../src/host/native.ts')
  const getpid = withoutKoffi.libcFunctions({ getpid: 'int getpid()' })
  assert.equal(withoutKoffi.hasNative(), false)
  assert.throws(getpid, /npm package "koffi".*npm install koffi@3\.3\.4/)
})
