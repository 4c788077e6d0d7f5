// Asks a cluster what a kafkajs program can ask, and prints each step with its outcome, parted by a tab.
//
//   answers.js BROKERS
'use strict'

const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = require('kafkajs')

const kafka = new Kafka({ clientId: 'answers', brokers: process.argv[2].split(','), logLevel: logLevel.NOTHING })
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function step(name, ask) {
  let outcome
  try {
    outcome = JSON.stringify(await ask())
  } catch (e) {
    outcome = `${e.type || e.name}${e.errors ? ': ' + e.errors.map((inner) => inner.type || inner.name) : ''}`
  }
  console.log(`${name}\t${outcome}`)
}

// Read by a group until there are so many.
async function read(topic, groupId, count) {
  const consumer = kafka.consumer({ groupId })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const values = []
  await consumer.run({ eachMessage: async ({ message }) => { values.push(message.value.toString()) } })
  for (let waited = 0; values.length < count && waited < 20000; waited += 50) await pause(50)
  await pause(200)
  await consumer.disconnect()
  return values.sort()
}

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  const topic = 'js-answers'
  const topics = [{ topic, numPartitions: 2, replicationFactor: 3 }]
  await step('create a topic', () => admin.createTopics({ topics, waitForLeaders: true }))
  await step('create it again', () => admin.createTopics({ topics }))
  await step('create a bad one', () => admin.createTopics({ topics: [{ topic: 'a b' }] }))
  await step('topics', async () => (await admin.listTopics()).includes(topic))
  await step('add partitions', () => admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }))
  await step('to fewer', () => admin.createPartitions({ topicPartitions: [{ topic, count: 1 }] }))
  await step('a setting', () => admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'min.insync.replicas', value: '2' }] }],
  }).then(() => 'set'))
  await step('the setting', async () => (await admin.describeConfigs({
    includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ['min.insync.replicas'] }],
  })).resources[0].configEntries.map((e) => `${e.configName}=${e.configValue}`))

  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, transactionalId: 'js-answers' })
  await producer.connect()
  const message = (value) => [{ key: value, value, partition: 0, headers: { of: 'kafkajs' } }]
  await step('commit', async () => {
    const transaction = await producer.transaction()
    const [sent] = await transaction.send({ topic, compression: CompressionTypes.GZIP, messages: message('committed') })
    await transaction.commit()
    return sent.errorCode
  })
  await step('abort', async () => {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: message('aborted') })
    await transaction.abort()
  })
  await step('commit again', async () => {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: message('after it') })
    await transaction.sendOffsets({ consumerGroupId: 'js-offsets', topics: [{ topic, partitions: [{ partition: 1, offset: '4' }] }] })
    await transaction.commit()
  })
  await step('read committed', () => read(topic, 'js-group', 2))
  await step('offsets of the topic', async () => (await admin.fetchTopicOffsets(topic)).map((o) => `${o.partition}:${o.low}-${o.high}`).sort())
  await step('offsets of a transaction', async () => {
    for (let tries = 0; tries < 50; tries++) {
      const [{ partitions }] = await admin.fetchOffsets({ groupId: 'js-offsets', topics: [topic] })
      const one = partitions.find((p) => p.partition === 1)
      if (one && one.offset !== '-1') return one.offset
      await pause(100)
    }
  })
  await step('describe the group', async () => (await admin.describeGroups(['js-group'])).groups.map((g) => `${g.state} ${g.protocolType} ${g.members.length}`))
  await step('set offsets', () => admin.setOffsets({ groupId: 'js-group', topic, partitions: [{ partition: 0, offset: '1' }] }))
  await step('offsets of the group', async () => (await admin.fetchOffsets({ groupId: 'js-group', topics: [topic] }))[0].partitions.map((p) => `${p.partition}:${p.offset}`).sort()[0])
  await step('groups', async () => (await admin.listGroups()).groups.filter((g) => g.groupId.startsWith('js-')).map((g) => g.groupId).sort())
  await step('delete groups', async () => (await admin.deleteGroups(['js-group', 'js-offsets'])).map((g) => g.errorCode))
  await step('delete them again', () => admin.deleteGroups(['js-group']))
  await step('cluster', async () => (await admin.describeCluster()).brokers.length)
  await step('delete the topic', () => admin.deleteTopics({ topics: [topic] }))
  await step('delete it again', () => admin.deleteTopics({ topics: [topic] }))
  await producer.disconnect()
  await admin.disconnect()
}

main().then(() => process.exit(0), (e) => {
  console.error(e)
  process.exit(1)
})
