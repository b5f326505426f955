import assert from 'node:assert/strict'
import { test } from 'node:test'
import { adapterLink, lanesOf, linkRate, speedName } from '../../src/spec/link-rate.ts'

test("an adapter's width and speed are Linux's of mlx5 for the speed of the interface, those of 100 Gb/s if it is unknown", () => {
  for (const [speed, shown] of [
    [100, '1X SDR'],
    [10_000, '1X QDR'],
    [25_000, '1X EDR'],
    [40_000, '4X QDR'],
    [50_000, '1X HDR'],
    [100_000, '4X EDR'],
    [200_000, '4X HDR'],
    [800_000, '4X NDR'],
    [undefined, '4X EDR'],
  ] as const) {
    const link = adapterLink(speed)
    assert.equal(`${lanesOf(link)}X ${speedName(link)}`, shown)
    assert.equal(link.activeSpeedEx, link.activeSpeed)
  }
  assert.equal(linkRate(adapterLink()), 1000, 'in units of 100 Mb/s')
})
