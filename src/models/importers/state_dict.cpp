#include "models/importers/state_dict.h"

#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <torch/types.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "data/archive.h"
#include "io/json_text.h"

namespace bitplan {
namespace {

constexpr std::size_t kMostPickle = std::size_t{1} << 24;  // bytes: names and shapes, not numbers
constexpr std::size_t kMostValues = std::size_t{1} << 21;
constexpr std::size_t kLongestName = 200;  // of what is called, and of a storage

using TensorsByName = std::map<std::string, torch::Tensor>;

struct Fault {
  std::string what;
};

// What the pickle machine makes.
struct Value;
using Values = std::vector<Value*>;
struct Value {
  enum class Kind { kOther, kText, kInteger, kGlobal, kTuple, kDictionary, kStorage, kTensor };
  Kind kind = Kind::kOther;
  std::string text;  // of a text; of a global "module name"; of something else what it was made by
  std::int64_t integer = 0;
  Values items;          // of a tuple; keys and values by turns of a dictionary
  torch::Tensor tensor;  // of a storage all of its numbers
};

std::optional<torch::ScalarType> TypeOfStorage(const std::string& name) {
  static const std::map<std::string, torch::ScalarType> types = {
      {"torch FloatStorage", torch::kFloat}, {"torch DoubleStorage", torch::kDouble},
      {"torch HalfStorage", torch::kHalf},   {"torch BFloat16Storage", torch::kBFloat16},
      {"torch LongStorage", torch::kLong},   {"torch IntStorage", torch::kInt},
      {"torch ShortStorage", torch::kShort}, {"torch CharStorage", torch::kChar},
      {"torch ByteStorage", torch::kByte},   {"torch BoolStorage", torch::kBool}};
  const auto found = types.find(name);
  return found == types.end() ? std::nullopt : std::optional(found->second);
}

using Numbers = std::function<torch::Tensor(const std::string& name)>;

class Unpickler {
 public:
  Unpickler(std::string_view pickle, const Numbers& numbers) : rest_(pickle), numbers_(numbers) {}

  const Value& Run() {
    while (true) {
      const auto operation = static_cast<unsigned char>(Take(1)[0]);
      if (operation == '.') return *Pop();
      Step(operation);
    }
  }

 private:
  void Step(unsigned char operation) {
    using Action = void (*)(Unpickler&);
    static const std::map<int, Action> actions = {
        {0x80, [](Unpickler& u) { u.Take(1); }},                            // PROTO
        {0x95, [](Unpickler& u) { u.Take(8); }},                            // FRAME
        {'c', [](Unpickler& u) { u.Global(); }},                            // GLOBAL
        {0x93, [](Unpickler& u) { u.GlobalOfStack(); }},                    // STACK_GLOBAL
        {'X', [](Unpickler& u) { u.Text(u.Number<std::uint32_t>()); }},     // BINUNICODE
        {0x8c, [](Unpickler& u) { u.Text(u.Number<std::uint8_t>()); }},     // SHORT_BINUNICODE
        {'K', [](Unpickler& u) { u.Integer(u.Number<std::uint8_t>()); }},   // BININT1
        {'M', [](Unpickler& u) { u.Integer(u.Number<std::uint16_t>()); }},  // BININT2
        {'J', [](Unpickler& u) { u.Integer(u.Number<std::int32_t>()); }},   // BININT
        {0x8a, [](Unpickler& u) { u.Long(u.Number<std::uint8_t>()); }},     // LONG1
        {'G', [](Unpickler& u) { u.Other(8); }},                            // BINFLOAT
        {'B', [](Unpickler& u) { u.Other(u.Number<std::uint32_t>()); }},    // BINBYTES
        {0x8b, [](Unpickler& u) { u.Long(u.Number<std::uint32_t>()); }},    // LONG4
        {0x8d, [](Unpickler& u) { u.Text(u.Number<std::uint64_t>()); }},    // BINUNICODE8
        {0x8e, [](Unpickler& u) { u.Other(u.Number<std::uint64_t>()); }},   // BINBYTES8
        {'C', [](Unpickler& u) { u.Other(u.Number<std::uint8_t>()); }},     // SHORT_BINBYTES
        {'N', [](Unpickler& u) { u.Other(0); }},                            // NONE
        {0x88, [](Unpickler& u) { u.Other(0); }},                           // NEWTRUE
        {0x89, [](Unpickler& u) { u.Other(0); }},                           // NEWFALSE
        {')', [](Unpickler& u) { u.Tuple({}); }},                           // EMPTY_TUPLE
        {']', [](Unpickler& u) { u.Tuple({}); }},                           // EMPTY_LIST
        {0x8f, [](Unpickler& u) { u.Tuple({}); }},                          // EMPTY_SET
        {'}', [](Unpickler& u) { u.Dictionary({}); }},                      // EMPTY_DICT
        {'(', [](Unpickler& u) { u.marks_.push_back(u.stack_.size()); }},   // MARK
        {'t', [](Unpickler& u) { u.Tuple(u.FromMark()); }},                 // TUPLE
        {'l', [](Unpickler& u) { u.Tuple(u.FromMark()); }},                 // LIST
        {0x85, [](Unpickler& u) { u.Tuple(u.Last(1)); }},                   // TUPLE1
        {0x86, [](Unpickler& u) { u.Tuple(u.Last(2)); }},                   // TUPLE2
        {0x87, [](Unpickler& u) { u.Tuple(u.Last(3)); }},                   // TUPLE3
        {'d', [](Unpickler& u) { u.Dictionary(u.FromMark()); }},            // DICT
        {'s', [](Unpickler& u) { u.Fill(u.Last(2)); }},                     // SETITEM
        {'u', [](Unpickler& u) { u.Fill(u.FromMark()); }},                  // SETITEMS
        {'a', [](Unpickler& u) { u.Fill(u.Last(1)); }},                     // APPEND
        {'e', [](Unpickler& u) { u.Fill(u.FromMark()); }},                  // APPENDS
        {0x90, [](Unpickler& u) { u.Fill(u.FromMark()); }},                 // ADDITEMS
        {'q', [](Unpickler& u) { u.Keep(u.Number<std::uint8_t>()); }},      // BINPUT
        {'r', [](Unpickler& u) { u.Keep(u.Number<std::uint32_t>()); }},     // LONG_BINPUT
        {0x94, [](Unpickler& u) { u.Keep(u.memo_.size()); }},               // MEMOIZE
        {'h', [](Unpickler& u) { u.Recall(u.Number<std::uint8_t>()); }},    // BINGET
        {'j', [](Unpickler& u) { u.Recall(u.Number<std::uint32_t>()); }},   // LONG_BINGET
        {'Q', [](Unpickler& u) { u.Storage(*u.Pop()); }},                   // BINPERSID
        {'R', [](Unpickler& u) { u.Call(); }},                              // REDUCE
        {0x81, [](Unpickler& u) { u.Call(); }},                             // NEWOBJ
        {'b', [](Unpickler& u) { u.Pop(); }},                               // BUILD: attributes, of no account
        {'0', [](Unpickler& u) { u.Pop(); }},                               // POP
    };
    const auto action = actions.find(operation);
    if (action == actions.end()) throw Fault{fmt::format("its pickle holds the unknown operation {}", operation)};
    action->second(*this);
  }

  std::string_view Take(std::uint64_t count) {
    if (count > rest_.size()) throw Fault{"its pickle is cut off"};
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  template <typename T>
  T Number() {
    T number = 0;
    std::memcpy(&number, Take(sizeof number).data(), sizeof number);
    return number;
  }
  std::string_view Line() {
    const auto end = rest_.find('\n');
    if (end == std::string_view::npos) throw Fault{"its pickle is cut off"};
    return Take(end + 1).substr(0, end);
  }

  Value& Push(Value::Kind kind) {
    if (values_.size() >= kMostValues) throw Fault{"its pickle holds more than any network"};
    values_.emplace_back().kind = kind;
    stack_.push_back(&values_.back());
    return values_.back();
  }
  Value* Top() {
    if (stack_.size() <= Floor()) throw Fault{"its pickle takes a value that it did not make"};
    return stack_.back();
  }
  Value* Pop() {
    Value* const value = Top();
    stack_.pop_back();
    return value;
  }
  [[nodiscard]] std::size_t Floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Values Last(std::size_t count) {
    if (stack_.size() - Floor() < count) throw Fault{"its pickle takes a value that it did not make"};
    const auto begin = stack_.end() - static_cast<std::ptrdiff_t>(count);
    Values values(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    return values;
  }
  Values FromMark() {
    if (marks_.empty()) throw Fault{"its pickle ends a list that it did not begin"};
    Values values = Last(stack_.size() - marks_.back());
    marks_.pop_back();
    return values;
  }

  void Other(std::uint64_t bytes) {
    Take(bytes);
    Push(Value::Kind::kOther);
  }
  void Global() {
    const std::string_view module = Line(), name = Line();
    Name(fmt::format("{} {}", module, name));
  }
  void GlobalOfStack() {
    const Values names = Last(2);
    Name(fmt::format("{} {}", Short(*names[0], Value::Kind::kText), Short(*names[1], Value::Kind::kText)));
  }
  void Name(const std::string& name) { Push(Value::Kind::kGlobal).text = name; }
  // The text of a value of a kind: what is copied is short.
  static const std::string& Short(const Value& value, Value::Kind kind) {
    if (value.kind != kind) throw Fault{"its pickle names something by what is no name"};
    if (value.text.size() > kLongestName) throw Fault{"its pickle holds a name that is too long"};
    return value.text;
  }
  void Text(std::uint64_t length) {
    const std::string_view text = Take(length);
    Push(Value::Kind::kText).text = text;
  }
  void Integer(std::int64_t integer) { Push(Value::Kind::kInteger).integer = integer; }
  void Long(std::uint64_t bytes) {
    const std::string_view digits = Take(bytes);
    if (bytes > 8) {  // no shape: the state of a generator of random numbers
      Other(0);
      return;
    }
    std::uint64_t number = !digits.empty() && (digits.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
    std::memcpy(&number, digits.data(), bytes);
    Integer(static_cast<std::int64_t>(number));
  }
  void Tuple(Values items) { Push(Value::Kind::kTuple).items = std::move(items); }
  void Dictionary(Values items) {
    if (items.size() % 2 != 0) throw Fault{"its pickle holds a key without a value"};
    Push(Value::Kind::kDictionary).items = std::move(items);
  }
  // What lists hold is never asked for.
  void Fill(const Values& items) {
    Value& into = *Top();
    if (into.kind != Value::Kind::kDictionary) return;
    if (items.size() % 2 != 0) throw Fault{"its pickle holds a key without a value"};
    into.items.insert(into.items.end(), items.begin(), items.end());
  }
  void Keep(std::uint64_t place) { memo_[place] = Top(); }
  void Recall(std::uint64_t place) {
    const auto found = memo_.find(place);
    if (found == memo_.end()) throw Fault{"its pickle takes a value that it did not make"};
    stack_.push_back(found->second);
  }

  // ('storage', torch.FloatStorage, key, device, numbers)
  void Storage(const Value& id) {
    if (id.kind != Value::Kind::kTuple || id.items.size() < 5) throw Fault{"it names no storage for a tensor"};
    Value& storage = Push(Value::Kind::kStorage);
    storage.text = Short(*id.items[1], Value::Kind::kGlobal);
    const auto type = TypeOfStorage(storage.text);
    if (!type) return;
    const std::string& key = Short(*id.items[2], Value::Kind::kText);
    torch::Tensor& known = storages_[key];
    if (!known.defined()) known = numbers_(key);
    const auto bytes = static_cast<std::int64_t>(c10::elementSize(*type));
    if (known.numel() % bytes != 0) throw Fault{"a tensor's numbers are cut off"};
    storage.tensor = known.view(*type);
  }

  static std::vector<std::int64_t> Sizes(const Value& tuple) {
    std::vector<std::int64_t> sizes;
    for (const Value* const item : tuple.items) {
      if (item->kind != Value::Kind::kInteger || item->integer < 0) throw Fault{"a tensor has a shape without meaning"};
      sizes.push_back(item->integer);
    }
    return sizes;
  }

  // (storage, offset, shape, strides, ...)
  void Tensor(const Value& arguments) {
    if (arguments.items.size() < 4 || arguments.items[0]->kind != Value::Kind::kStorage) {
      throw Fault{"it holds a tensor without numbers"};
    }
    const Value& storage = *arguments.items[0];
    if (!storage.tensor.defined()) {
      Push(Value::Kind::kOther).text = storage.text;
      return;
    }
    const auto shape = Sizes(*arguments.items[2]), strides = Sizes(*arguments.items[3]);
    const std::int64_t offset = arguments.items[1]->integer;
    if (shape.size() != strides.size()) throw Fault{"a tensor has a shape without meaning"};
    std::int64_t last = offset, numbers = 1;
    bool outside = offset < 0;
    for (std::size_t d = 0; d < shape.size(); ++d) {
      std::int64_t span = 0;
      outside = outside || __builtin_mul_overflow(numbers, shape[d], &numbers) ||
                __builtin_mul_overflow(shape[d] - 1, strides[d], &span) || __builtin_add_overflow(last, span, &last);
    }
    outside = outside || (numbers > 0 && last >= storage.tensor.numel());
    // A stride of zero repeats numbers: more of them than the storage has are no weights.
    if (outside || numbers > storage.tensor.numel()) throw Fault{"a tensor reaches beyond its numbers"};
    Push(Value::Kind::kTensor).tensor = numbers == 0 ? torch::empty(shape, storage.tensor.options())
                                                     : storage.tensor.as_strided(shape, strides, offset);
  }

  void Call() {
    const Values made = Last(2);
    if (made[0]->kind != Value::Kind::kGlobal) {  // a method that was made by another call
      Push(Value::Kind::kOther);
      return;
    }
    const std::string& function = Short(*made[0], Value::Kind::kGlobal);
    const Value& arguments = *made[1];
    if (function == "torch._utils _rebuild_tensor_v2") {
      Tensor(arguments);
    } else if (function == "torch._utils _rebuild_parameter" && !arguments.items.empty()) {
      stack_.push_back(arguments.items[0]);
    } else if (function == "collections OrderedDict") {
      Dictionary({});
    } else {
      Push(Value::Kind::kOther).text = function;
    }
  }

  std::string_view rest_;
  const Numbers& numbers_;
  std::deque<Value> values_;  // all that were made: they may hold each other
  Values stack_;
  std::vector<std::size_t> marks_;
  std::map<std::uint64_t, Value*> memo_;
  std::map<std::string, torch::Tensor> storages_;
};

const Value* Entry(const Value& dictionary, const std::string& key) {
  for (std::size_t i = 0; i + 1 < dictionary.items.size(); i += 2) {
    if (dictionary.items[i]->text == key) return dictionary.items[i + 1];
  }
  return nullptr;
}

TensorsByName TensorsOf(const Value& dictionary) {
  TensorsByName tensors;
  for (std::size_t i = 0; i + 1 < dictionary.items.size(); i += 2) {
    const Value& key = *dictionary.items[i];
    const Value& value = *dictionary.items[i + 1];
    if (key.kind != Value::Kind::kText) continue;
    if (value.kind == Value::Kind::kTensor) tensors[key.text] = value.tensor;
    if (value.kind == Value::Kind::kOther && value.text.ends_with("Storage")) {
      throw Fault{fmt::format("tensor '{}' has numbers of the unknown type {}", key.text, value.text)};
    }
  }
  return tensors;
}

// Of the dictionary itself, or of the one in it that checkpoints have.
TensorsByName Unpickled(std::string_view pickle, const Numbers& numbers) {
  if (pickle.size() > kMostPickle) throw Fault{"its pickle is larger than that of any network"};
  Unpickler unpickler(pickle, numbers);
  const Value& top = unpickler.Run();
  if (top.kind != Value::Kind::kDictionary) {
    const std::string held = top.text.empty() ? "no dictionary" : "an object of Python (" + top.text + ")";
    throw Fault{"it holds " + held + "; write torch.save(model.state_dict(), path)"};
  }
  TensorsByName tensors;
  for (const char* key : {"state_dict", "model_state_dict", "model"}) {
    const Value* const inner = Entry(top, key);
    if (tensors.empty() && inner != nullptr && inner->kind == Value::Kind::kDictionary) tensors = TensorsOf(*inner);
  }
  if (tensors.empty()) tensors = TensorsOf(top);
  if (tensors.empty())
    throw Fault{
        "it holds no tensors, neither itself nor under state_dict, model_state_dict or model; write "
        "torch.save(model.state_dict(), path)"};
  return tensors;
}

torch::Tensor Record(caffe2::serialize::PyTorchStreamReader& reader, const std::string& name) {
  const auto [data, size] = reader.getRecord(name);
  torch::Tensor bytes = torch::empty({static_cast<std::int64_t>(size)}, torch::kByte);
  std::memcpy(bytes.data_ptr(), data.get(), size);
  return bytes;
}

TensorsByName Read(const std::filesystem::path& file) {
  if (const auto fault = ArchiveFault(file)) throw Fault{*fault};
  caffe2::serialize::PyTorchStreamReader reader(file.string());
  if (reader.hasRecord("constants.pkl")) {
    throw Fault{"it is a TorchScript program; name it in model.file, which needs no weights beside it"};
  }
  const auto records = reader.getAllRecords();
  const std::set<std::string> names(records.begin(), records.end());  // the reader itself does not mind capitals
  const auto record = [&](const std::string& name) {
    if (!names.contains(name)) throw Fault{fmt::format("it has no entry '{}'", name)};
    return Record(reader, name);
  };
  const torch::Tensor pickle = record("data.pkl");
  return Unpickled({static_cast<const char*>(pickle.data_ptr()), static_cast<std::size_t>(pickle.numel())},
                   [&](const std::string& name) { return record("data/" + name); });
}

template <typename Make>
TensorsByName InOneLine(const std::string& before, const Make& make) {
  std::string why;
  try {
    return make();
  } catch (const Fault& fault) {
    why = fault.what;
  } catch (const c10::Error& error) {
    why = error.what_without_backtrace();
  }
  throw Error(ErrorKind::kData, ValidUtf8(OneLine(before + why)));
}

}  // namespace

TensorsByName ReadStateDict(const std::filesystem::path& file, const std::string& what) {
  return InOneLine(what + " cannot be read: ", [&] { return Read(file); });
}

TensorsByName UnpickleTensors(std::string_view pickle,
                              const std::function<torch::Tensor(const std::string& name)>& numbers) {
  return InOneLine("", [&] { return Unpickled(pickle, numbers); });
}

}  // namespace bitplan
