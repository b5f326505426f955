/*
 * What `userdma check` says of mistakes that outside programs have made (test/programs/check/mistakes.c, posts.c): the
 * cause, in the words of the program's call, and no other error.
 */
import assert from 'node:assert/strict'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { lacking, ownProgram, suiteScope, temporaryFolder } from '../programs.ts'
import { checkScript, type FindingJson, isOf } from './checking.ts'

const program = ownProgram('mistakes')
const posts = ownProgram('posts')
const mlx5 = ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']

/** Values that are nearly right. */
const nearlyRight: Readonly<Record<string, readonly RegExp[]>> = {
  'packed-address': [
    /^remote-out-of-bounds: .* \/ the lower 4 bytes of 0x1000\w+ are the upper ones of 0x\w+, which is in the range: it was read 4 bytes too late, as from a struct of another layout$/,
  ],
  'only-offset': [
    /^remote-out-of-bounds: .* \/ 0x40 is less than the length of the range: an offset, an index or a length, and no address$/,
  ],
  'scaled-twice': [
    /^remote-out-of-bounds: .* \/ the offset 0x3000 is 3 times 64 times 64: an index may have been multiplied by the size/,
  ],
  'lacking-after-imm': [
    /^no-receive-posted: (?!.*IBV_WC).* imm_data of send .* is 0x7000000 in network byte order, [^/]*: 7 without htonl \//,
  ],
  'wc-opcode': [
    /^no-receive-posted: .* \/ WRITE_WITH_IMM wr_id 1 has taken a receive: IBV_WC_RDMA_WRITE, of completions, /,
  ],
  'immediate-and-none': [/^no-receive-posted: (?!.*IBV_WC_RDMA_WRITE)/],
  'cut-wr-id': [
    /^program-died: died of SIGSEGV, at an access to (0x\w+), where no memory is \/ \1 is the wr_id of WRITE, whose completion had come: a pointer that was cut to 32 bits/,
  ],
  'host-immediate': [
    /^immediate-byte-order: imm_data of send wr_id 1 .* is 0x7000000 in network byte order, .*; the receiver, process \d+ \(host-immediate\), died of SIGSEGV, at an access to 0x\w+, where no memory is, after such a message/,
  ],
  'agreed-immediate': [/^program-died: died of SIGSEGV, at an access to 0x1c, where no memory is$/],
}

/** What a provider refuses, by one errno or another. */
const refusedByProvider: Readonly<Record<string, readonly RegExp[]>> = {
  'too-many-sges': [/^bad-request: .* it has 8 scatter\/gather elements, and max_send_sge is \d$/],
  'recv-beside-srq': [/^refused-call: .*: the queue pair has an SRQ: post to the SRQ$/],
}

/** By mistake: what text and details of its errors and warnings say, in their order. */
const told: Readonly<Record<string, readonly RegExp[]>> = {
  'ring-of-sends': [/^refused-call: ibv_post_send is called with 0x\w+ for `next` of a request .* the list is a ring/],
  'ring-of-recvs': [/^refused-call: ibv_post_recv is called with 0x\w+ for `next` of a request .* the list is a ring/],
  'wild-next': [
    /^program-died: died of SIGSEGV in ibv_post_send, at an access to 0x5a5a5a5a5a\w\w, where no memory is$/,
  ],
  'negative-sges': [/^refused-call: ibv_post_send is called with -1 for num_sge of a request: providers /],
  'polls-nothing': [/^refused-call: ibv_poll_cq is called with 0 for its argument num_entries: it polls nothing/],
  'cut-number': [
    /^no-peer-qp: .*there is no QP 0x\w+ at.* \/ 0x\w+ has the lower 16 bits of 0x\w+, the number of QP 0x\w+ of process/,
  ],
  'cut-number-ud': [/^no-peer-qp: .* \/ 0x\w+ has the lower 16 bits of 0x\w+, the number of QP 0x\w+ of process/],
  'cut-key': [/^unknown-rkey: .* \/ 0x\w+ has the lower 16 bits of 0x\w+, a key of MR 0x\w+ of 4096 bytes: it was cut/],
  'zero-based': [
    /^remote-out-of-bounds: .* addresses of this region begin at 0x0 \(IBV_ACCESS_ZERO_BASED\), so this byte is 0x0$/,
  ],
  'channel-first': [/^use-after-destroy: rdma_destroy_id on CM_ID 0, whose event channel was destroyed/],
  ...nearlyRight,
  ...refusedByProvider,
  'half-connected': [/^peer-not-ready: (?!.*was meant)/],
  'own-number': [
    /^connected-to-itself: QP (0x\w+) SEND wr_id 1 goes to QP \1 itself: the datagram before came from QP /,
  ],
  'own-wakeup': [],
  'gives-up': [/^unknown-rkey: /],
  'early-qp': [/^refused-call: rdma_create_qp on CM_ID 0: EINVAL: the identifier has no device yet/],
}
/** On mlx5, which moderates events. */
const toldOnMlx5: typeof told = {
  ...nearlyRight,
  ...refusedByProvider,
  'negative-sges': told['negative-sges']!,
  moderated: [
    /^lost-wakeup: CQ \d+ has 1 unpolled completion, and was armed while ibv_modify_cq asks for one event per 64/,
  ],
}
/** Of posts.c. */
const toldOfPosts: typeof told = {
  'other-member': [
    /^unknown-rkey: .* \/ wr\.rdma\.rkey of the request is 0x\w+, that of MR 0x\w+ of 4096 bytes, and wr/,
  ],
  'left-elements': [],
  'dead-struct': [/^frame-returned: the struct of the send wr_id 1 of QP /],
  'dead-buffer': [/^frame-returned: the buffer of the send wr_id 1 of QP /, /^local-out-of-bounds: /],
}

const sentence = ({ id, text, details }: FindingJson): string => [`${id}: ${text}`, ...details].join(' / ')

/** Findings that follow from another one: they are notes. */
const follow: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  'host-immediate': { 'program-died': 1 },
  'gives-up': { leak: 8 },
}

describe('mistakes of outside programs', { skip: lacking(program, posts) }, () => {
  const suite = suiteScope()
  for (const [title, made, options, mistakes] of [
    ['rxe', program, [], told],
    ['mlx5', program, mlx5, toldOnMlx5],
    ['posts', posts, [], toldOfPosts],
  ] as const)
    describe(title, () => {
      let found: readonly FindingJson[] = []
      before(async () => {
        const folder = temporaryFolder(suite)
        const names = Object.keys(mistakes)
        for (const name of names) symlinkSync(made, join(folder, name))
        const script = names.map(name => `${folder}/${name} ${name} >&2;`).join(' ')
        found = (await checkScript(suite, `${script} true`, options)).found
      })

      for (const [name, expected] of Object.entries(mistakes))
        it(name, () => {
          const own = found.filter(isOf(name)).filter(({ severity, id }) => severity !== 'note' && id !== 'leak')
          assert.equal(own.length, expected.length, own.map(sentence).join('\n'))
          for (const [i, pattern] of expected.entries()) assert.match(sentence(own[i]!), pattern)
          const [error] = own
          const following = found.filter(isOf(name)).filter(({ follows }) => follows !== undefined)
          assert.ok(following.every(({ severity, follows }) => severity === 'note' && follows === error?.number))
          const counts: Record<string, number> = {}
          for (const { id } of following) counts[id] = (counts[id] ?? 0) + 1
          assert.deepEqual(counts, follow[name] ?? {})
        })
    })
})
