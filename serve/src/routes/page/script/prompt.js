// What is asked: the task's form becomes PaliGemma's prompt.

/** The languages of the captions that the model saw in its training. */
const LANGUAGES = ('en ar bn cs da de el es fa fi fil fr he hi hr hu id it ja ko mi nl no pl pt quz ro ru sv sw te th tr uk '
  + 'vi zh').split(' ');

const TASKS = {
  caption: { field: 'language', prompt: (form) => `caption ${form.language}` },
  describe: { field: 'language', prompt: (form) => `describe ${form.language}` },
  answer: { field: 'question', missing: 'Write a question first.', prompt: (form) => form.question && `answer ${form.language} ${form.question}` },
  ocr: { prompt: () => 'ocr' },
  detect: { field: 'things', missing: 'Write what to look for first.', prompt: (form) => form.things && `detect ${form.things}` },
  segment: { field: 'things', missing: 'Write what to look for first.', prompt: (form) => form.things && `segment ${form.things}` },
  free: { field: 'free', missing: 'Write a prompt first.', prompt: (form) => form.free },
};

const taskNow = () => document.querySelector('input[name=task]:checked').value;

/** The prompt, or an empty text if something is missing. */
function promptNow() {
  const line = (id) => $(id).value.trim().replace(/\s+/g, ' ');
  const things = line('things').split(/[;,]/).map((thing) => thing.trim()).filter(Boolean).join(' ; ');
  const form = { language: $('language').value || 'en', question: line('question'), things, free: $('free').value.trim() };
  return TASKS[taskNow()].prompt(form);
}

function showForm() {
  const { field } = TASKS[taskNow()];
  for (const name of ['question', 'things', 'free']) $(`field-${name}`).hidden = name !== field;
  $('field-language').hidden = field !== 'language' && field !== 'question';
  const prompt = promptNow();
  $('prompt').textContent = prompt || '–';
  if (prompt) tell('ask-problem', '');
}

/** The built-in model knows English alone. */
function offerLanguages(isDemo) {
  const select = $('language');
  const before = select.value || 'en';
  const names = typeof Intl.DisplayNames === 'function' ? new Intl.DisplayNames(['en'], { type: 'language' }) : null;
  const codes = isDemo ? ['en'] : LANGUAGES;
  select.replaceChildren(...codes.map((code) => make('option', { value: code, textContent: names?.of(code) ?? code })));
  select.value = codes.includes(before) ? before : 'en';
}
