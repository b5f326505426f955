/*
 * Texts of numbers, and addresses of views, as the page shows them.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { lidAddress } from '../../src/transport/wire/address.ts'
import {
  addressText,
  bytesText,
  clockText,
  durationText,
  exactBytesText,
  lossesText,
  plural,
  proseParts,
  psnText,
  rateText,
  timeText,
  valueText,
} from '../../web/format.ts'
import { linkTo, parseRoute } from '../../web/route.ts'

describe('texts of the page', () => {
  for (const [value, text] of [
    [0.5, '500 ns'],
    [0.0123, '12.3 ns'],
    [1, '1.00 µs'],
    [99.94, '99.9 µs'],
    [100, '100 µs'],
    [1000, '1.00 ms'],
    [67_100, '67.1 ms'],
    [1e6, '1.00 s'],
    [123_456_789, '123 s'],
  ] as const)
    it(`duration ${value} µs: ${text}`, () => assert.equal(durationText(value), text))

  for (const [value, text] of [
    [1e10, '10 Gbit/s'],
    [2.5e9, '2.5 Gbit/s'],
    [1e6, '1 Mbit/s'],
    [999, '999 bit/s'],
    [8e11, '800 Gbit/s'],
  ] as const)
    it(`rate ${value}: ${text}`, () => assert.equal(rateText(value), text))

  it('why a link has lost packets', () => {
    assert.equal(lossesText({ overflowed: 0, lost: 0, tooLong: 0 }), '')
    assert.equal(lossesText({ overflowed: 1234, lost: 0, tooLong: 2 }), '1,234 queue full, 2 above the MTU')
  })

  for (const [value, text] of [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1023.9 * 1024, '1023.9 KiB'],
    [2 ** 20 - 1, '1.0 MiB'],
    [64 * 2 ** 20, '64 MiB'],
    [5 * 2 ** 40, '5 TiB'],
    [5000 * 2 ** 40, '5000 TiB'],
  ] as const)
    it(`${value} bytes: ${text}`, () => assert.equal(bytesText(value), text))

  it('bytes that are rounded, also exactly', () =>
    assert.deepEqual([16, 4096, 4112, 2 ** 20 - 1].map(exactBytesText), [
      '16 B',
      '4 KiB',
      '4.0 KiB (4,112 B)',
      '1.0 MiB (1,048,575 B)',
    ]))

  it('values of objects: sizes, addresses and keys, and numbers', () =>
    assert.deepEqual(
      [
        ['length', '0x20000'],
        ['start', '0x7fb970665000'],
        ['rkey', 3_324_778_668],
        ['qpAccessFlags', 7],
        ['sqPsn', 4096],
        ['maxSendWr', 4096],
        ['name', 'x'],
        ['queue', { offset: '0xfffafe000', size: 8192 }],
      ].map(([name, value]) => valueText(name as string, value)),
      ['128 KiB', '0x7fb970665000', '0xc62c18ac', '0x7', '0x001000', '4,096', 'x', 'offset 0xfffafe000, size 8 KiB'],
    ))

  it('sentences: what is between backticks is code', () =>
    assert.deepEqual(proseParts('look with `ibv_devinfo -v`, or `sminfo`; it`s \x1b[2J'), [
      'look with ',
      'ibv_devinfo -v',
      ', or ',
      'sminfo',
      '; it`s  [2J',
    ]))

  it('addresses: LIDs, IPv4, IPv6', () => {
    const ipv4 = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1)
    assert.deepEqual([lidAddress(6), ipv4].map(addressText), ['LID 6', '10.0.0.1'])
  })

  it('times, PSNs, counts', () => {
    assert.equal(timeText(1_234_567.4), '1.234\u2009567')
    assert.equal(clockText(1_700_000_000_123), '2023-11-14 22:13:20.123 UTC')
    assert.equal(clockText(Number.NaN), 'unknown')
    assert.equal(psnText(0x1a), '0x00001a')
    assert.deepEqual(
      [0, 1, 1000].map(count => plural(count, 'event')),
      ['0 events', '1 event', '1,000 events'],
    )
  })

  it('links keep their parameters, also 0, and leave out those without a value', () => {
    const link = linkTo('ladder', { qp: 0, at: '1.5 & 2', filter: '', from: undefined })
    const { view, params } = parseRoute(link)
    assert.deepEqual(
      [view, [...params]],
      [
        'ladder',
        [
          ['qp', '0'],
          ['at', '1.5 & 2'],
        ],
      ],
    )
    assert.equal(linkTo('calls'), '#/calls')
  })
})
