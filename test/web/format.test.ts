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
  lossesText,
  plural,
  psnText,
  rateText,
  timeText,
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
    [10_239, '10,239 B'],
    [10_240, '10.0 KiB'],
    [1_048_576, '1024 KiB'],
    [10_485_760, '10.0 MiB'],
    [10 * 2 ** 50, '10240 TiB'],
  ] as const)
    it(`${value} bytes: ${text}`, () => assert.equal(bytesText(value), text))

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
